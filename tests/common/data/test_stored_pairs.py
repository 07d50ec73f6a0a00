from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from common.data.samples import Sample
from common.data.store.request import Geometry, Intensity, Request
from common.data.store.store import SliceStore
from common.data.stored_pairs import StoredPair, display_affine, selected_slices, stored_pair
from common.data.structures import LabelSet
from common.errors import UserError

Save = Callable[..., Path]


@pytest.fixture
def pair(tmp_path: Path) -> Callable[..., StoredPair]:
    """Converts an image and a label file and joins them."""

    def joined(image: Path, label: Path, label_set: LabelSet | None = None) -> StoredPair:
        store = SliceStore(tmp_path / "store", Geometry(16))
        requests = [Request(image, "image", Intensity()), Request(label, "label")]
        return stored_pair(Sample(image, label, "p"), *store.convert(requests), label_set or LabelSet())

    return joined


@pytest.fixture
def first(hearts: Path) -> tuple[Path, Path]:
    """Image and label of patient p0, counts of whose slices the tests know."""
    return hearts / "images" / "p0.nii.gz", hearts / "labels" / "p0.nii.gz"


def test_classes_of_codes(first: tuple[Path, Path], pair: Callable[..., StoredPair]) -> None:
    table = pair(*first, LabelSet("PA,LV")).table
    assert table is not None and table.tolist() == [0, 1, 0, 0, 0, 0, 0, 2]


def test_filters(first: tuple[Path, Path], pair: Callable[..., StoredPair]) -> None:
    pairs = [pair(*first), pair(*first)]
    # 12 pixels in slice 0 (LV and RV, 2 x 3 each), 42 in slices 1..3, none in slice 4.
    assert selected_slices(pairs, 0, 1, ()).tolist() == [[n, z] for n in range(2) for z in range(5)]
    assert selected_slices(pairs, 1, 1, ())[:, 1].tolist() == [0, 1, 2, 3] * 2
    assert selected_slices(pairs, 12, 1, ())[:, 1].tolist() == [0, 1, 2, 3] * 2
    assert selected_slices(pairs, 13, 1, ())[:, 1].tolist() == [1, 2, 3] * 2
    assert selected_slices(pairs, 1, 2, ())[:, 1].tolist() == [0, 2] * 2
    only = [pair(*first, LabelSet("PA"))]
    assert selected_slices(only, 1, 1, ())[:, 1].tolist() == [1, 2, 3]


def test_nothing_left_says_why(first: tuple[Path, Path], pair: Callable[..., StoredPair]) -> None:
    with pytest.raises(
        UserError, match=r"no slices left of 5 \(p\): 2 after every=4, none .* min_pixels=13 .* LV, RV"
    ):
        selected_slices([pair(*first)], 13, 4, ("LV", "RV"))
    with pytest.raises(UserError, match="at least 1"):
        selected_slices([pair(*first)], 1, 0, ())


def test_other_shape_or_place(
    first: tuple[Path, Path], pair: Callable[..., StoredPair], save_volume: Save, heart_label: Callable
) -> None:
    image, label = first
    array = heart_label(0)
    affine = np.diag([-1.5, -1.5, 4.0, 1.0])
    save_volume(label, array[:, :-1])
    with pytest.raises(UserError, match=r"labels/p0.*15 x 16 x 5 .*images/p0.*16 x 16 x 5"):
        pair(image, label)
    for row, shift in ((0, 0.01), (3, 0.5)):
        wrong = affine.copy()
        wrong[2, row] += shift
        save_volume(label, array, wrong)
        with pytest.raises(UserError, match=rf"labels/p0.*affine differs from .*images/p0.*{shift:g} mm"):
            pair(image, label)
    save_volume(label, array, affine + 1e-5)
    pair(image, label)


def test_the_order_of_the_axes_may_differ(
    first: tuple[Path, Path], pair: Callable[..., StoredPair], save_volume: Save, heart_label: Callable
) -> None:
    image, label = first
    # The same voxels at the same places, stored as (Z from above, Y, X) instead of (X, Y, Z).
    turned = heart_label(0).transpose(2, 1, 0)[::-1]
    affine = np.array([[0, 0, -1.5, 0], [0, -1.5, 0, 0], [-4.0, 0, 0, 16], [0, 0, 0, 1]])
    joined = pair(image, save_volume(label, turned, affine))
    assert np.allclose(display_affine(joined.label), display_affine(joined.image))
    assert display_affine(joined.image).tolist()[0] == [0, -1.5, 0, 0]  # columns run to the left
