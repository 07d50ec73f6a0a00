from __future__ import annotations

import numpy as np
import pytest

from bundles.lung_two_stage.rivals.cubes import CubeShape, cut_cubes
from common.data.nodule_scan import NoduleScan
from common.errors import UserError


def ramp(shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> NoduleScan:
    """HU = 100 z + 10 y + x, in voxels."""
    z, y, x = np.mgrid[tuple(slice(0, n) for n in shape)]
    hu = (100 * z + 10 * y + x).astype(np.int16)
    return NoduleScan(hu, np.zeros(shape, np.uint8), spacing, "ramp", "ramp", ())


def test_a_cube_is_linear_between_voxels_in_mm() -> None:
    """Voxels of 4 x 2 x 1 mm, cubes of 2 slices 2 mm apart and 8 x 8 voxels of 2 mm."""
    scan = ramp((9, 40, 80), (4.0, 2.0, 1.0))
    (cube,) = cut_cubes(scan, np.array([[4.0, 20.0, 40.0]]), CubeShape(8, 16.0, 2, 2.0))
    assert cube.shape == (2, 8, 8) and cube.dtype == np.int16
    corner = 100 * (4 - 0.25) + 10 * (20 - 3.5) + (40 - 7)
    assert cube[0, 0, 0] == corner
    assert cube[1, 0, 0] - cube[0, 0, 0] == 50 and cube[0, 1, 0] - cube[0, 0, 0] == 10
    assert cube[0, 0, 1] - cube[0, 0, 0] == 2


def test_the_edge_continues_and_one_slice_is_any_depth() -> None:
    scan = ramp((1, 32, 32), (1.0, 1.0, 1.0))
    (cube,) = cut_cubes(scan, np.array([[0, 0, 31]]), CubeShape(8, 8.0, 3, 2.0))
    assert (cube == cube[0]).all()
    assert cube[0, 0, 7] == 31 and cube[0, 7, 7] == 35 + 31  # rows above 0 repeat row 0; row 3.5 is 35
    far = cut_cubes(scan, np.array([[0, 500, -500]]), CubeShape(8, 8.0))
    assert (far == 310).all()


def test_a_margin_widens_the_plane_only() -> None:
    scan = ramp((5, 64, 64), (1.0, 1.0, 1.0))
    points = np.array([[2, 30, 30], [2, 20, 44]])
    plain, wide = (cut_cubes(scan, points, CubeShape(16, 16.0, 2, 1.0), margin) for margin in (0, 4))
    assert wide.shape == (2, 2, 24, 24) and (wide[:, :, 4:-4, 4:-4] == plain).all()
    assert cut_cubes(scan, np.zeros((0, 3)), CubeShape()).shape == (0, 1, 32, 32)


def test_shapes_that_make_no_sense_are_refused() -> None:
    with pytest.raises(UserError, match="multiple of 8"):
        CubeShape(30)
    with pytest.raises(UserError, match="0 x 32 x 32"):
        CubeShape(depth=0)
