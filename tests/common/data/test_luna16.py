from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from common.data.nodules import WorldNodule, paint_spheres, read_annotations, voxels_of
from common.data.volume_io import open_volume
from common.errors import UserError
from tests.common.data.made_scans import HEADER, write_luna


def test_annotations_by_series(tmp_path: Path) -> None:
    path = tmp_path / "annotations.csv"
    path.write_text(HEADER + "b,1,2,3,4\na,-1.5,0,9,6\nb,5,6,7,8\n")
    assert read_annotations(path) == {
        "b": (WorldNodule(1, 2, 3, 4), WorldNodule(5, 6, 7, 8)),
        "a": (WorldNodule(-1.5, 0, 9, 6),),
    }


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("seriesuid,coordX,coordY,coordZ\na,1,2,3\n", "no column diameter_mm"),
        (HEADER + "a,1,2,3,4\nb,1,x,3,4\n", "line 3 holds no coordinates"),
        (HEADER + "a,1,2,3\n", "line 2 holds no coordinates"),
        (HEADER + "a,1,2,3,0\n", "line 2 has the diameter 0 mm"),
        (HEADER + "a,1,2,nan,4\n", "line 2 has the diameter 4 mm"),
    ],
)
def test_bad_tables(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "annotations.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=rf"annotations\.csv: {problem}"):
        read_annotations(path)


def test_excluded_findings_may_have_no_diameter(tmp_path: Path) -> None:
    path = tmp_path / "annotations_excluded.csv"
    path.write_text(HEADER + "a,1,2,3,-1\na,1,2,9,2.5\n")
    assert read_annotations(path, excluded=True)["a"] == (WorldNodule(1, 2, 3, 10), WorldNodule(1, 2, 9, 2.5))
    with pytest.raises(UserError, match=r"annotations_excluded\.csv: line 2 has the diameter -1 mm"):
        read_annotations(path)


@pytest.mark.parametrize(("flipped", "world"), [(False, (15, 26, 36)), (True, (5, 14, 36))])
def test_world_to_voxel_follows_the_direction(
    tmp_path: Path, flipped: bool, world: tuple[float, float, float]
) -> None:
    """Voxel (3, 4, 5) of the file lies at origin +- index x spacing; the display is upright either way."""
    folder = write_luna(tmp_path, "", flipped=flipped)
    volume = open_volume(folder / "1.2.mhd")
    voxels = voxels_of([WorldNodule(*world, 3.0)], volume, folder / "1.2.mhd")
    expected = (3, 9 - 4, 11 - 5) if flipped else (3, 4, 5)
    np.testing.assert_allclose(voxels, [expected], atol=1e-6)
    slice_, row, column = expected
    assert volume.array[row, column, slice_] == 40


def test_an_annotation_outside_is_refused(tmp_path: Path) -> None:
    folder = write_luna(tmp_path, "")
    path = folder / "1.2.mhd"
    inside = WorldNodule(10 - 0.49, 20, 30, 3)
    assert voxels_of([inside], open_volume(path), path)[0, 2] == pytest.approx(-0.49)
    with pytest.raises(UserError, match=r"1\.2\.mhd: the annotation at \(10, 20, 46\) mm lies outside"):
        voxels_of([inside, WorldNodule(10, 20, 46, 3)], open_volume(path), path)


def test_spheres_have_their_volume_and_stay_within() -> None:
    mask = paint_spheres((20, 40, 40), (2, 1, 1), np.array([[10.0, 20.0, 15.0]]), [16.0])
    assert mask.sum() * 2 == pytest.approx(4 / 3 * np.pi * 8**3, rel=0.04)
    assert mask[10, 20, 7] and mask[10, 20, 23] and not mask[10, 20, 6] and not mask[15, 20, 15]
    assert mask[14, 20, 15] and not mask[10, 20, 24]
    corner = paint_spheres((4, 4, 4), (5, 5, 5), np.array([[0.0, 3.4, 1.6]]), [1.0])
    assert np.argwhere(corner).tolist() == [[0, 3, 2]]  # smaller than a voxel: the one at its centre
