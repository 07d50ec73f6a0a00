from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bundles.lung_two_stage.extraction.masks import annotated, category_names, mask_source, with_categories
from bundles.lung_two_stage.segmentation.network import DenseUNet
from bundles.lung_two_stage.segmentation.predicting import SegmentationMethod
from common.data.nodule_scan import NoduleScan
from common.errors import UserError


def found_and_known() -> tuple[np.ndarray, np.ndarray]:
    found, known = np.zeros((2, 1, 12, 12), np.uint8)
    found[0, 1:4, 1:4] = found[0, 8:11, 8:11] = 1
    known[0, 1:3, 1:4], known[0, 3, 1:4] = 2, 1
    return found, known


def test_pieces_have_the_category_that_they_cover_most_of() -> None:
    made = with_categories(*found_and_known(), ("solid", "part_solid"))
    assert (made[0, 1:4, 1:4] == 2).all() and (made[0, 8:11, 8:11] == 3).all() and (made > 0).sum() == 18
    assert category_names(("solid", "part_solid"), "segmented") == ["solid", "part_solid", "unknown"]


def test_without_categories_all_are_one() -> None:
    found, known = found_and_known()
    assert np.array_equal(with_categories(found, known, ()), found)
    assert category_names((), "segmented") == [] and category_names(("a",), "annotated") == ["a"]


def test_annotated_masks_are_the_scans_own() -> None:
    found, known = found_and_known()
    scan = NoduleScan(found.astype(np.int16), known, (1.0, 1.0, 1.0), "a", "p", ())
    assert mask_source("annotated", "nowhere.pt") is annotated and annotated(scan) is known


def test_refusals_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="masks 'guessed' is unknown"):
        mask_source("guessed", "nowhere.pt")
    with pytest.raises(UserError, match=r"model\.(pt|json)"):
        mask_source("segmented", tmp_path / "model.pt")


def test_segmented_masks_are_those_of_the_saved_model(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = DenseUNet()
    torch.save(network.state_dict(), tmp_path / "model.pt")
    hu = np.random.default_rng(0).integers(-1000, 200, (2, 16, 16)).astype(np.int16)
    scan = NoduleScan(hu, np.zeros(hu.shape, np.uint8), (1.0, 1.0, 1.0), "a", "p", (), ("solid",))
    mask = mask_source("segmented", tmp_path / "model.pt")(scan)
    expected = SegmentationMethod.from_model("any", tmp_path / "model.pt").masks(scan)
    assert np.array_equal(mask > 0, expected > 0) and set(np.unique(mask)) <= {0, 2}  # unknown
