"""What MONAI asks of a bundle: metadata, network format, properties, export; and life in another folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigWorkflow

from common.inference.checkpoint import network_for
from tests.bundles.case import BundleCase, override_words
from tests.bundles.cases import CASES
from tests.bundles.runs import ROOT, Run, command, finished, forked

SCHEMA = ROOT / "tests" / "data" / "meta_schema_20240725.json"


def metadata(case: BundleCase) -> str:
    return str(case.configs / "metadata.json")


def test_metadata_follows_the_schema(case: BundleCase, tmp_path: Path) -> None:
    schema = shutil.copy(SCHEMA, tmp_path / SCHEMA.name)
    parts = ["verify_metadata", "--meta_file", metadata(case), "--filepath", str(schema)]
    run = forked(parts, tmp_path / "log")
    assert run.code == 0 and "metadata is verified with no error" in run.out + run.err, run.err


@pytest.mark.parametrize("config", ["inference", "evaluate", "train"])
def test_the_network_keeps_to_its_declared_format(
    case: BundleCase, data: Path, tmp_path: Path, config: str
) -> None:
    name = {"train": case.train, "evaluate": case.evaluate}.get(config, config)
    files = ["--meta_file", metadata(case), "--config_file", str(case.configs / f"{name}.yaml")]
    given = override_words(case.built_with(data)) if config == "train" else []
    run = forked(["verify_net_in_out", "network_def", *files, "--n", "2", *given], tmp_path / "log")
    assert run.code == 0 and "data shape of network is verified with no error" in run.out + run.err, run.err


@pytest.mark.parametrize(
    ("config", "kind", "run_id"),
    [
        ("train", "train", "training"),
        pytest.param("evaluate", "infer", "evaluating", marks=pytest.mark.slow),
        pytest.param("inference", "infer", "inference", marks=pytest.mark.slow),
    ],
)
def test_no_property_is_missing(
    case: BundleCase, data: Path, tmp_path: Path, config: str, kind: str, run_id: str
) -> None:
    given = {**case.beside(data), "dataset_dir": data, "output_dir": tmp_path / "run"}
    if config == "inference":
        given = {**case.inference(data), "output_dir": tmp_path / "run"}
    else:
        given |= case.evaluating(data) if config == "evaluate" else case.built_with(data)
    if config != "train":
        given |= case.with_shipped
    name = {"train": case.train, "evaluate": case.evaluate}.get(config, config)
    settings = {key: str(value) if isinstance(value, Path) else value for key, value in given.items()}
    workflow = ConfigWorkflow(
        str(case.configs / f"{name}.yaml"),
        metadata(case),
        logging_file=False,
        workflow_type=kind,
        run_id=run_id,
        **settings,
    )
    workflow.initialize()
    assert workflow.check_properties() == []


def test_export_gives_the_same_images(case: BundleCase, trained: tuple[Path, Run], tmp_path: Path) -> None:
    model = trained[0] / "models" / "model.pt"
    files = ["--config_file", str(case.configs / "inference.yaml"), "--meta_file", metadata(case)]
    target = ["--ckpt_file", str(model), "--filepath", str(tmp_path / "model.ts"), "--ckpt_path", str(model)]
    run = forked(["ckpt_export", "network_def", *files, *target], tmp_path / "log")
    assert run.code == 0, run.err
    exported = torch.jit.load(tmp_path / "model.ts")
    plain = network_for(model, otherwise=torch.nn.Identity()).eval()
    plain.load_state_dict(torch.load(model, weights_only=True))
    given = case.network_input()
    torch.testing.assert_close(exported(given), plain(given))


@pytest.mark.parametrize("case", CASES[:1], ids=lambda case: case.name)
def test_the_plain_command_works_from_another_folder(case: BundleCase, data: Path, tmp_path: Path) -> None:
    """Absolute paths to the configs, nothing of the repository on the path; a relative output folder."""
    before = {path.name for path in case.root.iterdir()}
    run = finished(command(case.training(data, "run"), cwd=tmp_path))
    assert run.code == 0, run.err
    assert {path.name for path in tmp_path.iterdir()} == {"run"}
    assert (tmp_path / "run" / "models" / "model.pt").is_file()
    assert {path.name for path in case.root.iterdir()} == before


def test_run_is_an_alias_of_each_files_own_list(
    case: BundleCase, trained: tuple[Path, Run], data: Path, tmp_path: Path
) -> None:
    model = trained[0] / "models" / "model.pt"
    given = {**case.inference(data), "ckpt_path": model, "output_dir": tmp_path / "out"}
    run = forked(case.arguments("run", "inference", **given), tmp_path / "log")
    assert run.code == 0, run.err
    assert list((tmp_path / "out").iterdir())


def test_monais_commands_work_beside_another_package_of_the_name(case: BundleCase, tmp_path: Path) -> None:
    (tmp_path / "common").mkdir()
    (tmp_path / "common" / "__init__.py").write_text("")
    files = ["--meta_file", metadata(case), "--config_file", str(case.configs / "inference.yaml"), "--n", "2"]
    run = forked(["verify_net_in_out", "network_def", *files], tmp_path / "log", cwd=tmp_path)
    assert run.code == 0 and "data shape of network is verified with no error" in run.out + run.err, run.err
