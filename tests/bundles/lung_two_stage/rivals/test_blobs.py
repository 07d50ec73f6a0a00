from __future__ import annotations

import numpy as np
import pytest

from bundles.lung_two_stage.rivals.blobs import RADII, find_blobs
from tests.bundles.lung_two_stage.rivals.made import scan_of


def test_a_disc_is_found_with_its_radius() -> None:
    """In a picture with pixels of 0.5 mm: discs of 9 and 13 pixels are 4.5 and 6.5 mm."""
    scan = scan_of([(0, 30, 40, 9), (0, 90, 80, 13)], (1, 128, 128), (1.0, 0.5, 0.5))
    blobs = find_blobs(scan.hu, scan.spacing)
    assert np.abs(blobs.centres[:2, 1:] - [[90, 80], [30, 40]]).max() <= 1 or (
        np.abs(blobs.centres[:2, 1:] - [[30, 40], [90, 80]]).max() <= 1
    )
    assert sorted(blobs.radii[:2]) == [4.5, 6.5]
    assert (np.diff(blobs.strengths) <= 0).all() and blobs.strengths[1] > 400


def test_a_ball_is_found_in_a_volume_of_thick_slices() -> None:
    scan = scan_of([(8, 20, 28, 6)], (16, 48, 48), (2.0, 1.0, 1.0))
    blobs = find_blobs(scan.hu, scan.spacing)
    assert np.abs(blobs.centres[0] - [8, 20, 28]).max() <= 1 and blobs.radii[0] in RADII[2:5]
    assert (blobs.strengths[1:] < 0.5 * blobs.strengths[0]).all()


def test_nothing_is_looked_for_away_from_air() -> None:
    scan = scan_of([(0, 32, 32, 6)])
    inside = scan.hu + np.int16(800)  # a lesion of 830 HU in tissue of -50 HU
    assert len(find_blobs(scan.hu, scan.spacing, least=300).centres) == 1
    assert len(find_blobs(inside, scan.spacing, least=30).centres) == 0
    assert len(find_blobs(inside, scan.spacing, least=30, air_share=0.0).centres) >= 1


def test_limits() -> None:
    scan = scan_of([(0, 16, 16, 4), (0, 48, 48, 6)])
    assert len(find_blobs(scan.hu, scan.spacing, least=5).centres) == 2
    assert find_blobs(scan.hu, scan.spacing, least=5, most=1).centres.tolist() == [[0, 48, 48]]
    empty = find_blobs(scan.hu, scan.spacing, least=5000)
    assert empty.centres.shape == (0, 3) and len(empty.radii) == 0


@pytest.mark.parametrize("shape", [(1, 40, 40), (6, 40, 40)])
def test_an_even_scan_has_no_blobs(shape: tuple[int, int, int]) -> None:
    assert len(find_blobs(np.full(shape, -850, np.int16), (1.0, 1.0, 1.0)).centres) == 0
