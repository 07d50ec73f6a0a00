from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from common.data.store.reading import SliceReader
from common.data.store.request import AXES, Geometry
from common.data.store.store import SliceStore
from common.data.store.volume import StoredVolume
from tests.common.data.store.made import hounsfield, image, label, labels, save


def converted(tmp_path: Path, geometry: Geometry) -> tuple[StoredVolume, StoredVolume]:
    requests = [
        image(save(tmp_path / "ct.nii", hounsfield())),
        label(save(tmp_path / "heart.nii", labels())),
    ]
    stored = SliceStore(tmp_path / "store", geometry, workers=1).convert(requests)
    return stored[0], stored[1]


def images(volume: StoredVolume) -> np.ndarray:
    return np.stack([SliceReader().image(volume, index) for index in range(volume.depth)])


def codes(volume: StoredVolume) -> np.ndarray:
    return np.stack([SliceReader().label(volume, index) for index in range(volume.depth)])


@pytest.mark.parametrize("spacing", [None, 0.25])
@pytest.mark.parametrize("axis", AXES)
def test_enlarged_slices_give_the_source_back(tmp_path: Path, axis: str, spacing: float | None) -> None:
    """64 pixels are more than any side has, at 0.25 mm too (2 mm x 8 slices is the longest, 16 mm)."""
    ct, heart = converted(tmp_path, Geometry(64, axis, spacing))
    assert ct.shape == (10, 12, 8) and ct.spacing == (0.75, 0.5, 2.0)
    assert ct.depth == {"axial": 8, "coronal": 10, "sagittal": 12}[axis]
    back = heart.to_source(codes(heart), nearest=True)
    assert back.dtype == np.uint8
    assert np.array_equal(np.take(heart.values, back), labels().transpose(1, 0, 2))
    hu = ct.to_source(images(ct)) * (ct.upper - ct.lower) + ct.lower
    inner = (slice(1, -1),) * 3  # beyond the outermost voxels' centres there is nothing to interpolate
    true = hounsfield().transpose(1, 0, 2)
    # Noise is smoothed on the way (there linearly, back by a triangle); the ramps' slopes are kept.
    assert np.abs(hu - true)[inner].max() < 45 and abs((hu - true)[inner].mean()) < 2
    for axis_of_array, slope in enumerate((-15, 40, 70)):
        assert np.diff(hu, axis=axis_of_array)[inner].mean() == pytest.approx(slope, abs=2)


@pytest.mark.parametrize("axis", AXES)
def test_the_same_size_is_exact_to_the_last_bit_of_sixteen(tmp_path: Path, axis: str) -> None:
    array = hounsfield(extent=(8, 8, 8))
    path = save(tmp_path / "cube.nii", array)
    (volume,) = SliceStore(tmp_path / "store", Geometry(8, axis), workers=1).convert([image(path)])
    hu = volume.to_source(images(volume)) * 2000 - 1000
    assert np.abs(hu - array.transpose(1, 0, 2)).max() < 0.02  # 2000 HU / 65535 / 2


@pytest.mark.parametrize(
    ("axis", "first", "last"),
    [
        # 10 rows of 0.75 mm are 15 pixels of 0.5 mm; 6..9 are kept, where the centres of rows 4..6 lie.
        ("axial", (4, 4, 0), (6, 7, 7)),
        # 8 slices of 2 mm are 32 pixels; 14..17, counted from the head, hold the centre of slice 4 alone.
        ("coronal", (0, 4, 4), (9, 7, 4)),
        ("sagittal", (4, 0, 4), (6, 11, 4)),
    ],
)
def test_what_was_cropped_away_comes_back_as_the_fill(
    tmp_path: Path, axis: str, first: tuple[int, ...], last: tuple[int, ...]
) -> None:
    ct, heart = converted(tmp_path, Geometry(4, axis, spacing=0.5))
    kept = heart.to_source(np.ones((heart.depth, 4, 4), np.int16), nearest=True, fill=-7)
    box = tuple(slice(low, high + 1) for low, high in zip(first, last, strict=True))
    assert kept.shape == (10, 12, 8) and kept.dtype == np.int16
    assert (kept[box] == 1).all() and (kept == 1).sum() == kept[box].size and (kept == -7).any()
    assert ct.to_source(np.ones((ct.depth, 4, 4)), fill=0.5).min() == 0.5


def test_a_stack_of_another_shape_is_an_error(tmp_path: Path) -> None:
    ct, _ = converted(tmp_path, Geometry(4))
    with pytest.raises(ValueError, match=r"\(7, 4, 4\) where \(8, 4, 4\)"):
        ct.to_source(np.zeros((7, 4, 4)))


def test_what_is_known_of_a_volume_is_small_and_travels(tmp_path: Path) -> None:
    ct, heart = converted(tmp_path, Geometry(4))
    for volume in (ct, heart):
        packed = pickle.dumps(volume)
        assert len(packed) < 3000
        copy = pickle.loads(packed)
        assert copy == volume and np.array_equal(copy.counts, volume.counts)
