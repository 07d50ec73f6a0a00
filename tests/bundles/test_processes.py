"""Two processes on the CPU train one model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from common.tools.package import read_config
from tests.bundles.case import BundleCase
from tests.bundles.runs import Run, command, finished

pytestmark = pytest.mark.timeout(2000)

LAUNCHER = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]


def train_in_two(
    case: BundleCase,
    data: Path,
    tmp_path: Path,
    overlay: dict[str, Any] | None = None,
    launcher: Sequence[str] = LAUNCHER,
    **more: Any,
) -> Run:
    """A training by ``multi_gpu_train.yaml`` and ``overlay``, which by default notes the samples."""
    recorder = {"_target_": "tests.bundles.recording.VisitedSamples", "folder": str(tmp_path / "seen")}
    file = tmp_path / "overlay.yaml"
    file.write_text(yaml.safe_dump(overlay or {"+train#handlers": [recorder]}))
    settings = case.settings(data, tmp_path / "run", **more)
    configs = [case.train, "multi_gpu_train", str(file.with_suffix(""))]
    return finished(command(case.arguments("training", configs, **settings), launcher=launcher), timeout=900)


def visits(tmp_path: Path) -> dict[int, list[int]]:
    """The samples of each epoch, of both processes together."""
    seen: dict[int, list[int]] = {}
    for rank in (0, 1):
        for line in (tmp_path / "seen" / f"rank_{rank}.jsonl").read_text().splitlines():
            epoch, *samples = json.loads(line)
            seen.setdefault(epoch, []).extend(samples)
    return seen


@pytest.mark.slow
def test_two_processes_share_the_samples_and_resume(case: BundleCase, data: Path, tmp_path: Path) -> None:
    first = train_in_two(case, data, tmp_path, max_epochs=2)
    assert first.code == 0, first.err
    resumed = train_in_two(case, data, tmp_path, max_epochs=3, resume=True)
    assert resumed.code == 0, resumed.err
    assert {epoch: sorted(samples) for epoch, samples in visits(tmp_path).items()} == {
        epoch: list(range(20)) for epoch in (1, 2, 3)
    }
    folder = tmp_path / "run"
    assert len(list((folder / "logs").glob("events.out.tfevents.*"))) == 2  # one a run, not one a process
    rows = (folder / "logs" / "losses.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows[1:]] == [str(step) for step in range(1, 16)]
    state = torch.load(folder / "models" / "resume.pt", weights_only=True)
    assert state["iteration"] == 15 and len(state["rng"]) == 2
    model = torch.load(folder / "models" / "model.pt", weights_only=True)
    assert not any(name.startswith("module.") for name in model)


@pytest.mark.slow
def test_a_resumed_run_in_two_processes_is_the_straight_one(
    case: BundleCase, data: Path, tmp_path: Path
) -> None:
    for name, epochs in (("straight", [2]), ("broken", [1, 2])):
        for number, last in enumerate(epochs):
            folder = tmp_path / name
            folder.mkdir(exist_ok=True)
            run = train_in_two(
                case, data, folder, max_epochs=last, resume=number > 0, decay_from=1.0, val_interval=1
            )
            assert run.code == 0, run.err
    for name in ("logs/losses.csv", "models/model.pt"):
        straight, broken = (tmp_path / kind / "run" / name for kind in ("straight", "broken"))
        assert straight.read_bytes() == broken.read_bytes(), name


@pytest.mark.slow
def test_a_refusal_ends_both_processes(case: BundleCase, data: Path, tmp_path: Path) -> None:
    run = train_in_two(case, data, tmp_path, batch_size=64)
    assert run.code == 1
    assert "error: 20 training samples are fewer than one batch of 64 x 2 processes" in run.err
    assert not (tmp_path / "run").exists()


def calmed(train: Mapping[str, Any]) -> dict[str, str]:
    """Overrides that keep the optimizers of ``train`` from making steps of rounding errors.

    Adam divides by the gradients' size, and some are nearly 0.
    """
    made = {f"train#{name}": value for name, value in train.items()}
    made |= {f"train#optimizers#{name}": value for name, value in train["optimizers"].items()}
    found = {key: text for key, text in made.items() if str(text).startswith("$torch.optim.Adam(")}
    assert len(found) == 2 and all(text.endswith(")") for text in found.values()), found
    return {key: text.removesuffix(")") + ", eps=1e-2)" for key, text in found.items()}


@pytest.mark.slow
def test_two_processes_are_one_with_the_doubled_batch(case: BundleCase, data: Path, tmp_path: Path) -> None:
    """With frozen BatchNorm, whose statistics are each process's own, and noise that belongs to samples."""
    overlay: dict[str, Any] = {
        "+imports": ["$import tests.bundles.recording as recording"],
        "shared_norm": "$recording.frozen",
    }
    overlay |= calmed(read_config(case.configs / f"{case.train}.yaml")["train"])
    if "latent" in case.tiny:
        latent = {"_target_": "tests.bundles.recording.LatentOfSample", "size": "@latent"}
        overlay["train#trainer#prepare_batch"] = latent
    plain = {"amp": False, "max_epochs": 1, "val_interval": 1, **case.undrawn}
    losses, weights = {}, {}
    for name, launcher, batch_size in (("two", LAUNCHER, 2), ("one", [], 4), ("other", [], 5)):
        folder = tmp_path / name
        folder.mkdir()
        run = train_in_two(case, data, folder, overlay, launcher, batch_size=batch_size, **plain)
        assert run.code == 0, run.err
        losses[name] = np.genfromtxt(folder / "run" / "logs" / "losses.csv", delimiter=",", names=True)
        state = torch.load(folder / "run" / "models" / "model.pt", weights_only=True)
        weights[name] = torch.cat([value.flatten().float() for value in state.values()])
    assert len(losses["two"]) == len(losses["one"]) == 5
    names = [column for column in losses["one"].dtype.names if column.startswith(("G_", "D_"))]
    assert "G_loss" in names and "D_loss" in names
    for column in names:
        # An accuracy counts signs, and after so few steps rounding turns those of logits near 0.
        apart = 0.1 if "accuracy" in column else 1e-4
        np.testing.assert_allclose(losses["two"][column], losses["one"][column], rtol=1e-3, atol=apart)
    moved = {name: float((weights[name] - weights["one"]).abs().mean()) for name in ("two", "other")}
    # Adam divides by the size of gradients, so rounding near 0 shows in the weights (0.02 to 0.06 seen).
    assert moved["two"] < 0.1 * moved["other"], moved


@pytest.mark.slow
def test_a_killed_process_is_started_again_and_the_run_goes_on(
    case: BundleCase, data: Path, tmp_path: Path
) -> None:
    launcher = [*LAUNCHER, "--max_restarts=1"]
    killed = {
        "_target_": "tests.bundles.recording.KilledOnce",
        "iteration": 8,
        "mark": str(tmp_path / "killed"),
    }
    for name, overlay in (("straight", {}), ("broken", {"+train#handlers": [killed]})):
        folder = tmp_path / name
        folder.mkdir()
        run = train_in_two(case, data, folder, overlay, launcher, max_epochs=2, resume=True, val_interval=1)
        assert run.code == 0, run.err
    assert (tmp_path / "killed").exists()
    assert "resumed after iteration 5" in run.out + run.err
    for name in ("logs/losses.csv", "models/model.pt"):
        straight, broken = (tmp_path / kind / "run" / name for kind in ("straight", "broken"))
        assert straight.read_bytes() == broken.read_bytes(), name
