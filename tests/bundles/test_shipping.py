"""A run's model becomes weights to ship: half the size, the same images, a card, no names."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from common.errors import UserError
from common.files import read_json, write_json
from common.inference.checkpoint import load_weights, network_for
from common.rng import preserved_rng
from common.tools.ship_weights import HAND_WRITTEN, ShipSettings, ship
from tests.bundles.case import BundleCase
from tests.bundles.conftest import Trained

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
