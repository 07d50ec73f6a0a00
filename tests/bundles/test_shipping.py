"""Trained weights leave a run: exported, made ready to ship, and those that the repository ships."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from common.errors import UserError
from common.files import read_json, write_json
from common.inference.checkpoint import load_weights, network_for
from common.rng import preserved_rng
from common.tools import export as exporting
from common.tools.export import ExportSettings, export
from common.tools.ship_weights import HAND_WRITTEN, ShipSettings, ship
from tests.bundles.case import BundleCase, override_words
from tests.bundles.cases import CASES
from tests.bundles.conftest import Trained
from tests.bundles.runs import ROOT, Run, fingerprints, forked

SAID = {"data": "made slices", "terms": "none", "command": "training", "commit": "abc"}


def shipped(case: BundleCase, run: Path, output: Path, **more: Any) -> Path:
    return ship(ShipSettings(case.name, run, output=output, **{**SAID, **more}))


def weights(path: Path) -> Mapping[str, torch.Tensor]:
    state: Mapping[str, torch.Tensor] = torch.load(path, weights_only=True)
    return state


def test_images_stay_within_a_step_of_8_bits(case: BundleCase, trained: Trained, tmp_path: Path) -> None:
    source = trained[0] / "models" / "model.pt"
    path = shipped(case, trained[0], tmp_path)
    assert path == tmp_path / "model.pt" and path.stat().st_size < 0.75 * source.stat().st_size
    images = []
    for file in (source, path):
        network = load_weights(network_for(file, otherwise=nn.Identity()), file, "")
        with preserved_rng(0), torch.inference_mode():
            images.append(network(case.network_input()))
    assert 0 < float((images[0] - images[1]).abs().max()) <= 2 / 255
    facts, before = read_json(path.with_suffix(".json")), read_json(source.with_suffix(".json"))
    counts = {part: len(names) for part, names in before["splits"].items()}
    assert facts == {**{k: v for k, v in before.items() if k != "splits"}, "patients": counts, "card": SAID}


def test_the_card_is_filled_in_and_what_was_written_by_hand_stays(
    case: BundleCase, trained: Trained, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained[0], run)
    value = {"mean": 0.5, "interval": [0.4, 0.6], "n": 8, "patients": 3, "better": "lower"}
    metric = {**value, "baselines": {"mean_image": {"mean": 4.25}, "real_real": {"mean": 0.0}}}
    write_json(run / "eval" / "metrics.json", {"extractor": "gridvgg", "metrics": {"kid": metric}})
    write_json(tmp_path / "trust.json", {"gate": {"verdict": "undecided", "reason": "3 patients"}})
    shipped(case, run, tmp_path / "out", trust=tmp_path / "trust.json")
    card = tmp_path / "out" / "README.md"
    text = card.read_text()
    assert "| `kid` | lower | 0.500 [0.400, 0.600] | 4.250 | 0.000 |" in text
    assert "| Trust report | release gate **undecided**: 3 patients |" in text
    assert "| Budget |" in text and "20 iterations, 2 epochs |" in text and "`training`, commit `abc`" in text
    card.write_text(text + "\nLooked at: blobs.\n\n## `other.pt`\n\nAnother one.\n")
    ship(ShipSettings(case.name, run, terms="new terms", output=tmp_path / "out"))  # the rest is remembered
    again = card.read_text()
    assert again.count("## `model.pt`") == 1 and again.endswith("\n\n## `other.pt`\n\nAnother one.\n")
    assert f"{HAND_WRITTEN}\n\nLooked at: blobs.\n" in again
    assert "| Terms | new terms |" in again and "| Data | made slices |" in again


def test_the_last_weights_of_a_network(case: BundleCase, trained: Trained, tmp_path: Path) -> None:
    networks = weights(trained[0] / "models" / "resume.pt")["networks"]
    last: Any = networks.get("G_ema", networks["G"])
    state = weights(shipped(case, trained[0], tmp_path, network="G"))
    assert all(torch.equal(state[k], v.half() if v.is_floating_point() else v) for k, v in last.items())
    assert "metrics" not in read_json(tmp_path / "model.json")
    with pytest.raises(UserError, match="no resume file with a network 'X'"):
        shipped(case, trained[0], tmp_path, network="X")


def test_what_must_not_ship(case: BundleCase, trained: Trained, tmp_path: Path) -> None:
    write_json(tmp_path / "trust.json", {"gate": {"verdict": "closed", "reason": "copies"}})
    out = tmp_path / "out"
    with pytest.raises(UserError, match="release gate is closed"):
        shipped(case, trained[0], out, trust=tmp_path / "trust.json")
    with pytest.raises(UserError, match="--terms: the model card needs it"):
        shipped(case, trained[0], out, terms=None)
    with pytest.raises(UserError, match="takes the output_dir of a training"):
        shipped(case, tmp_path, out)
    run = tmp_path / "run"
    shutil.copytree(trained[0] / "models", run / "models")
    state = {k: v * 1e7 if v.is_floating_point() else v for k, v in weights(run / "models/model.pt").items()}
    torch.save(state, run / "models" / "model.pt")
    with pytest.raises(UserError, match="half precision changes its images by"):
        shipped(case, run, out)
    assert not out.exists()


SHIPPED = sorted(ROOT.glob("bundles/*/models/*.pt"))


@pytest.mark.parametrize("weights", SHIPPED, ids=lambda path: f"{path.parts[-3]}-{path.stem}")
def test_they_are_small_and_name_no_patients(weights: Path) -> None:
    state = torch.load(weights, map_location="cpu", weights_only=True)
    assert {value.dtype for value in state.values() if value.is_floating_point()} == {torch.float16}
    assert weights.stat().st_size <= 25_000_000
    facts = read_json(weights.with_suffix(".json"))
    assert "splits" not in facts and facts["patients"]["train"] > 1
    card = (weights.parent / "README.md").read_text()
    assert all(word in card for word in (weights.name, "Data", "Patients", "Command", "Trust report"))
    network = load_weights(network_for(weights, otherwise=nn.Identity()), weights, "")
    assert all(value.dtype is torch.float32 for value in network.parameters())
    if "non-commercial" in card:
        for name in ("configs/metadata.json", "docs/data_license.txt"):
            assert "non-commercial" in (weights.parents[1] / name).read_text()


def git(folder: Path, *words: str) -> str:
    """What git prints."""
    identity = ("-c", "user.name=test", "-c", "user.email=test@example.org")
    return subprocess.run(
        ["git", *identity, *words], cwd=folder, capture_output=True, text=True, check=True
    ).stdout


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A fresh clone: the files that git tracks, as they are now, committed."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no git checkout")
    folder = tmp_path / "clone"
    for name in filter(None, git(ROOT, "ls-files", "-z").split("\0")):
        if (ROOT / name).exists() and not name.startswith("tests/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)
    for words in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", "all"]):
        git(folder, *words)
    return folder


def run(clone: Path, case: BundleCase, run_id: str, config: str, **overrides: Any) -> Run:
    """A run in the clone, with its own code."""
    parts = ["run", run_id, "--config_file", f"bundles/{case.name}/configs/{config}.yaml"]
    log = clone.with_name(f"log_{run_id}")
    return forked([*parts, *override_words(overrides)], log, cwd=clone, installed=False)


@pytest.mark.slow
def test_a_fresh_clone_draws_and_evaluates(case: BundleCase, data: Path, clone: Path) -> None:
    """Or says in one line that there are no weights yet."""
    model = clone / "bundles" / case.name / "models" / "model.pt"
    given = {
        "output_dir": clone.with_name("out"),
        "device": "cpu",
        **case.inference(data),
        **case.with_shipped,
    }
    drawn = run(clone, case, "inference", "inference", **given)
    beside = {**case.beside(data), **case.evaluating(data), "dataset_dir": data, **case.with_shipped}
    evaluated = run(clone, case, "evaluating", case.evaluate, **beside)
    if not model.is_file():
        assert "no trained model yet" in drawn.error and "no trained model yet" in evaluated.error
        return
    for done in (drawn, evaluated):
        assert done.code == 0 and f"{model}: shipped weights" in done.out, done.err
    again = run(clone, case, "inference", "inference", **{**given, "output_dir": clone.with_name("again")})
    assert again.code == 0
    images = [list(fingerprints(clone.with_name(name)).values()) for name in ("out", "again")]
    assert images[0] and images[0] == images[1]
    assert git(clone, "status", "--porcelain") == ""


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES[:3], ids=lambda case: case.name)
def test_a_trained_model_comes_first_and_git_sees_nothing_of_it(
    case: BundleCase, data: Path, clone: Path
) -> None:
    """As `make demo`: everything goes where the configs write by default."""
    bundle = clone / "bundles" / case.name
    settings = {**case.tiny, **case.beside(data), "dataset_dir": data, "max_epochs": 1, "val_interval": 1}
    trained = run(clone, case, "training", case.train, **settings)
    assert trained.code == 0, trained.err
    assert run(clone, case, "evaluating", case.evaluate, **case.evaluating(data), dataset_dir=data).code == 0
    drawn = run(clone, case, "inference", "inference", **case.inference(data))
    assert f"{bundle / 'run' / 'models' / 'model.pt'}: trained model" in drawn.out, drawn.err
    assert (bundle / "run" / "eval" / "metrics.json").is_file() and list((bundle / "synthetic").iterdir())
    assert git(clone, "status", "--porcelain") == ""
    # As versions before trained: the models in models/, the rest beside it.
    shutil.rmtree(bundle / "models", ignore_errors=True)
    for part in ("models", "logs", "eval"):
        (bundle / "run" / part).rename(bundle / part)
    drawn = run(clone, case, "inference", "inference", **case.inference(data))
    assert f"{bundle / 'models' / 'model.pt'}: trained model" in drawn.out, drawn.err
    longer = {**settings, "max_epochs": 2, "resume": True, "output_dir": bundle}
    assert "resumed after iteration 10" in run(clone, case, "training", case.train, **longer).out


def plain_images(model: Path, given: torch.Tensor) -> np.ndarray:
    """What eager PyTorch draws."""
    network = load_weights(network_for(model, otherwise=torch.nn.Identity()), model, "")
    with torch.inference_mode():
        return network(given).numpy()


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_torchscript_draws_the_same_images(
    case: BundleCase, trained: Trained, tmp_path: Path, batch: int
) -> None:
    model = trained[0] / "models" / "model.pt"
    path = export(ExportSettings(case.name, "torchscript", model, tmp_path / "x.ts"))
    given = case.network_input().repeat(3, *[1] * (case.network_input().ndim - 1))[:batch]
    images = torch.jit.load(path)(given).detach().numpy()
    np.testing.assert_allclose(images, plain_images(model, given), atol=1e-5)


@pytest.mark.slow
def test_onnx_draws_the_same_images_in_any_batch(case: BundleCase, trained: Trained, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    model = trained[0] / "models" / "model.pt"
    path = export(ExportSettings(case.name, "onnx", model, tmp_path / "x.onnx"))
    assert [file.name for file in tmp_path.iterdir()] == ["x.onnx"]
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    [described] = session.get_inputs()
    assert described.name == "image" and described.shape[0] == "batch"
    given = case.network_input()
    for batch in (given[:1], given, given.repeat(3, *[1] * (given.ndim - 1))):
        [images] = session.run(["pred"], {"image": batch.numpy()})
        np.testing.assert_allclose(images, plain_images(model, batch), atol=1e-5)


@pytest.mark.slow
def test_an_export_with_other_images_is_not_kept(
    case: BundleCase, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "difference", lambda *_: float("nan"))
    with pytest.raises(UserError, match=r"x.ts: not written, its images differ from PyTorch's by nan"):
        export(
            ExportSettings(case.name, "torchscript", trained[0] / "models" / "model.pt", tmp_path / "x.ts")
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_without_weights_nothing_is_exported(case: BundleCase, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no trained model yet"):
        export(ExportSettings(case.name, "torchscript", tmp_path / "model.pt"))
