"""The sets that are compared."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bundles.lung_two_stage.composition.reading import Composites
from bundles.lung_two_stage.evaluation.evaluating import survival, told
from bundles.lung_two_stage.evaluation.generated import chain_sets, in_window, rival_sets
from bundles.lung_two_stage.generation.networks import ConvolutionalGenerator
from common.data.intensity import WINDOWS, Window
from common.files import write_json
from tests.bundles.lung_two_stage.made_work import write_composites

LUNG = WINDOWS["lung"]


def test_the_same_composites_before_and_after(tmp_path: Path) -> None:
    before, after = (write_composites(tmp_path / name, 9, 4) for name in ("before", "after"))
    sets, masks = chain_sets(before, after, LUNG, 5)
    torch.testing.assert_close(sets["composites"], sets["enhanced"])
    assert sets["enhanced"].shape == masks.shape == (5, 1, 32, 32)
    shown = {(composite.mask > 0).tobytes() for composite in Composites(before)}
    assert all((mask.numpy()[0] > 0).tobytes() in shown for mask in masks)


def test_a_rivals_slices_come_in_size_and_window(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    arguments = {"image_size": 16, "latent": 4, "width": 4, "channels": 1, "classes": 2}
    network = ConvolutionalGenerator(**arguments)
    torch.save(network.state_dict(), tmp_path / "model.pt")
    target = "bundles.lung_two_stage.generation.networks.ConvolutionalGenerator"
    about = {"latent": 4, "window_hu": [-1000, 400], "network": {"target": target, "arguments": arguments}}
    write_json(tmp_path / "model.json", about)
    paths = {"dcgan": tmp_path / "model.pt", "gan": tmp_path / "none.pt"}
    with caplog.at_level("INFO"):
        sets = rival_sets(paths, 35, (32, 32), LUNG)
    assert set(sets) == {"dcgan"} and "gan is not trained" in caplog.text
    images = sets["dcgan"]
    assert images.shape == (35, 1, 32, 32) and float(images.abs().max()) <= 1
    assert torch.equal(rival_sets(paths, 35, (32, 32), LUNG)["dcgan"], images)


def test_windows_are_brought_together() -> None:
    """-600..0 HU seen in -1000..400: its ends are 400 and 1000 of 1400 HU up."""
    images = torch.tensor([-1.0, 1.0])
    expected = torch.tensor([400 / 700 - 1, 1000 / 700 - 1])
    torch.testing.assert_close(in_window(images, Window(-600, 0), LUNG), expected)


def test_a_washed_out_nodule_is_told() -> None:
    masks = torch.zeros(1, 1, 32, 32)
    masks[..., 12:20, 12:20] = 1
    before = masks - 0.8
    assert survival(before, before, masks, None)["contrast_kept"] == 1
    kept = survival(before, masks * 0.25 - 0.8, masks, None)
    assert kept["contrast_kept"] == pytest.approx(0.25) and kept["dice_after"] is None
    assert told(kept).startswith("nodules after the enhancement: 0.250 of their contrast")
