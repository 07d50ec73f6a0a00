"""What every bundle refuses: one line on standard error that names the trouble, exit 1, nothing written."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import yaml

from tests.bundles.case import BundleCase
from tests.bundles.cases import CASES
from tests.bundles.runs import Run, command, fingerprints, finished, forked


def train(case: BundleCase, data: Path, folder: Path, **more: object) -> Run:
    return forked(case.training(data, folder / "run", **more), folder / "log")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("epocs", 3, "unknown config key 'epocs'; did you mean 'max_epochs'?"),
        ("network_def#depth", 3, "takes no 'depth'"),
        ("amp", "fp8", "amp: 'fp8'"),
        ("window", "lungs", "lungs"),
        ("adversarial", "bbce", "bbce"),
        ("extractor", "inceptoin", "inceptoin"),
        ("batch_size", 64, "training samples are fewer than one batch of 64"),
        ("image_size", 40, "image_size 40 does not fit the networks"),
    ],
)
def test_a_bad_setting_is_one_line(
    case: BundleCase, data: Path, tmp_path: Path, key: str, value: object, said: str
) -> None:
    assert said in train(case, data, tmp_path, **{key: value}).error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"gradient_penalty": 0.0}, "adversarial wasserstein needs a critic whose slope is bounded"),
        ({"gradient_penalty": 10.0, "discriminator_def#norm": "batch"}, "batch norm undoes the bound"),
    ],
)
def test_a_critic_that_nothing_holds_back_is_one_line(
    case: BundleCase, data: Path, tmp_path: Path, settings: dict[str, object], said: str
) -> None:
    """Before the data are read, where the networks do not follow from them."""
    if "norm" not in yaml.safe_load((case.configs / f"{case.train}.yaml").read_text())["discriminator_def"]:
        settings = {key: value for key, value in settings.items() if key != "discriminator_def#norm"}
        if settings["gradient_penalty"]:
            pytest.skip("its discriminator has no norm")
    where = data if case.built_with(data) else tmp_path / "nowhere"
    assert said in train(case, where, tmp_path, adversarial="wasserstein", **settings).error
    assert not (tmp_path / "run").exists()


def test_a_bad_augmentation_is_one_line(case: BundleCase, data: Path, tmp_path: Path) -> None:
    assert "rotate" in train(case, data, tmp_path, **case.no_augment).error
    assert not (tmp_path / "run").exists()


def test_the_plain_command_refuses_in_one_line_too(tmp_path: Path) -> None:
    case = CASES[0]
    parts = case.arguments("training", case.train, epocs=3, output_dir=tmp_path / "run")
    assert finished(command(parts)).error.endswith("did you mean 'max_epochs'?")
    assert not (tmp_path / "run").exists()


def test_without_a_model_evaluating_says_train_first(case: BundleCase, data: Path, tmp_path: Path) -> None:
    folders = {"output_dir": tmp_path / "run", "bundle_root": tmp_path / "bundle"}
    given = {**case.beside(data), "dataset_dir": data, **folders}
    error = forked(case.arguments("evaluating", case.evaluate, **given), tmp_path / "log").error
    assert str(tmp_path / "run" / "models" / "model.pt") in error and "train first" in error
    assert not (tmp_path / "run").exists()


def test_without_a_model_inference_says_train_first(case: BundleCase, data: Path, tmp_path: Path) -> None:
    given = {**case.inference(data), "ckpt_path": tmp_path / "model.pt", "output_dir": tmp_path / "out"}
    error = forked(case.arguments("inference", "inference", **given), tmp_path / "log").error
    assert str(tmp_path / "model.pt") in error and "train first" in error
    assert not (tmp_path / "out").exists()


def test_a_broken_model_is_one_line(
    case: BundleCase, trained: tuple[Path, Run], data: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained[0], tmp_path / "run")
    model = tmp_path / "run" / "models" / "model.pt"
    model.write_bytes(model.read_bytes()[:500])
    parts = case.arguments(
        "evaluating", case.evaluate, **case.beside(data), dataset_dir=data, output_dir=tmp_path / "run"
    )
    assert str(model) in forked(parts, tmp_path / "log").error


def test_an_existing_run_is_refused_and_goes_on_when_asked(
    case: BundleCase, trained: tuple[Path, Run], data: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained[0], tmp_path / "run")
    before = fingerprints(tmp_path / "run")
    error = train(case, data, tmp_path, max_epochs=3).error
    assert "a run is already there" in error and "--resume true" in error
    assert fingerprints(tmp_path / "run") == before
    resumed = train(case, data, tmp_path, max_epochs=3, resume=True, learning_rate=0.001234)
    assert resumed.code == 0, resumed.err
    assert "resumed after iteration 20" in resumed.out
    assert "is 0.001234; max_epochs was 2, is 3" in resumed.out
    state = torch.load(tmp_path / "run" / "models" / "resume.pt", weights_only=True)
    assert state["optimizers"]["G"]["param_groups"][0]["initial_lr"] == 0.001234
    rows = (tmp_path / "run" / "logs" / "losses.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows[1:]] == [str(step) for step in range(1, 31)]


def test_resuming_with_other_settings_is_one_line(
    case: BundleCase, trained: tuple[Path, Run], data: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained[0], tmp_path / "run")
    before = fingerprints(tmp_path / "run")
    error = train(case, data, tmp_path, resume=True, ema_half_life=777).error
    assert "ema_half_life was " in error and ", is 777; use the run's settings" in error
    assert fingerprints(tmp_path / "run") == before


def test_a_config_file_that_is_not_there_is_refused(case: BundleCase, tmp_path: Path) -> None:
    parts = ["run", "training", "--config_file", str(case.configs / "trian.yaml")]
    run = forked(parts, tmp_path / "log")
    assert run.code == 1 and "trian.yaml" in run.err  # MONAI's own words: no config has begun yet
