from __future__ import annotations

import numpy as np
import pytest

from common.data.phantoms.anatomy import (
    Grid,
    Points,
    Pose,
    blend,
    capsule,
    coverage,
    draw_noise,
    ellipsoid,
    patient_points,
)


def at(x: float, y: float, z: float) -> Points:
    return tuple(np.array([value], np.float32) for value in (x, y, z))  # type: ignore[return-value]


def test_ellipsoid_is_exact_for_a_sphere() -> None:
    for x, expected in ((13.0, 3.0), (10.0, 0.0), (4.0, -6.0)):
        assert ellipsoid(at(x + 1, 2, 3), (1, 2, 3), (10, 10, 10))[0] == pytest.approx(expected, abs=1e-3)


def test_ellipsoid_follows_its_axes() -> None:
    turned = np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    assert ellipsoid(at(0, 20, 0), (0, 0, 0), (20, 5, 5), turned)[0] == pytest.approx(0, abs=1e-3)
    assert ellipsoid(at(20, 0, 0), (0, 0, 0), (20, 5, 5), turned)[0] > 5


def test_capsule_tapers() -> None:
    def tapered(x: float, y: float) -> float:
        return float(capsule(at(x, y, 0), (0, 0, 0), (10, 0, 0), (4, 2))[0])

    assert tapered(0, 5) == pytest.approx(1)
    assert tapered(10, 5) == pytest.approx(3)
    assert tapered(13, 0) == pytest.approx(1)


def test_blend_fills_the_corner_only() -> None:
    one, two = np.array([1.0, 1.0], np.float32), np.array([1.0, 20.0], np.float32)
    assert blend(one, two, 8).tolist() == pytest.approx([-1.0, 1.0])


def test_coverage_is_a_ramp() -> None:
    assert coverage(np.array([-3, -0.5, 0, 0.5, 3], np.float32), 2).tolist() == [1, 0.75, 0.5, 0.25, 0]


def test_noise_is_the_same_field_at_another_voxel_size() -> None:
    noise, grids = draw_noise(np.random.default_rng(3), 30), (Grid((24, 24, 12)), Grid((72, 72, 36)))
    coarse, fine = (noise.on_grid(grid) for grid in grids)
    assert np.allclose(coarse, fine[1::3, 1::3, 1::3], atol=1e-4)
    assert 0.5 < fine.std() < 1.5
    place = np.array([[grids[0].axis(n)[i] for n, i in enumerate((5, 17, 9))]], float)
    assert noise.at_points(place)[0] == pytest.approx(coarse[5, 17, 9], abs=1e-4)


def test_points_and_pose_are_inverse() -> None:
    grid, pose = Grid((20, 16, 12)), Pose((1.1, 0.9, 1.05), (5, -3, 12), (4, -7, 9))
    points = patient_points(grid, pose)
    index = (13, 5, 9)
    patient = np.array([[float(p[index]) for p in points]])
    expected = [float(grid.axis(n)[index[n]]) for n in range(3)]
    assert pose.to_grid(patient)[0] == pytest.approx(expected, abs=1e-3)


def test_affine_maps_left_and_back_to_negative_world() -> None:
    grid = Grid((36, 36, 24))
    affine = grid.affine((10.0, -20.0, -300.0))
    first = affine @ [0, 0, 0, 1]
    assert first[:3] == pytest.approx([-(-175 + 10), -(-175 - 20), 5 - 300])
    assert (affine @ [1, 1, 1, 1] - first)[:3] == pytest.approx([-10, -10, 10])
