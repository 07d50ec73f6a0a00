from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from common.errors import UserError
from common.trust.checks import check_sets
from common.trust.sets import Sets
from tests.common.trust.made_textures import a_set, pictures, sets_with


def test_sound_sets_pass() -> None:
    check_sets(sets_with(pictures(6, 2), 6, 6))


def refused(sets: Sets) -> str:
    with pytest.raises(UserError) as caught:
        check_sets(sets)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_sets_that_cannot_be_compared_are_named() -> None:
    good = sets_with(pictures(6, 2), 6, 6)
    broken = pictures(3, 2)
    broken[1, 0, 3, 3] = torch.nan
    assert refused(replace(good, synthetic=a_set(broken, "synthetic"))).startswith(
        "synthetic: synthetic_001.png holds NaN"
    )
    assert refused(sets_with(pictures(1, 2))) == "synthetic: holds 1 image; at least 2 are needed"
    small = refused(sets_with(torch.nn.functional.avg_pool2d(pictures(6, 2), 2)))
    assert small == "synthetic: images of 16 x 16 pixels but 32 x 32 in real; read both at one size"
    masks = refused(sets_with((pictures(6, 2) > 0).float() * 2 - 1))
    assert masks.startswith("synthetic: most images have no more than 16 gray values, as masks do")
    check_sets(sets_with((pictures(6, 2) > 0).float() * 2 - 1, 6, 6), drawn=True)


def test_equal_sets_shared_images_and_shared_patients() -> None:
    same = sets_with(pictures(60, 0).flip(0))
    assert refused(same) == "synthetic: holds the same 60 images as real; give two different sets"
    check_sets(sets_with(pictures(60, 0)[:59]))  # copies are for the release gate to find
    good = sets_with(pictures(6, 2), 6, 6)
    other = pictures(6, 1)
    other[2] = pictures(6, 0)[4]
    shared = refused(replace(good, heldout=a_set(other, "heldout")))
    assert shared.startswith("heldout: heldout_002.png is the same image as real_004.png in real")
    patients = a_set(pictures(6, 1), "heldout", ["a", "real1", "b", "b", "c", "real2"])
    assert refused(replace(good, heldout=patients)).startswith(
        "heldout: patient real1 is in real too (2 in all)"
    )
