from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.transforms import ScaleIntensityRanged

from bundles.lung_two_stage.baselines.candidate_classifier import BlobProposer, CandidatePoints
from bundles.lung_two_stage.baselines.candidates import (
    RADII,
    CubeData,
    CubeShape,
    _labelled,
    cut_cubes,
    find_blobs,
    hits_nodule,
    merge_candidates,
)
from common.data.loaders import SampleIndex
from common.data.nodules import Nodule, NoduleScan
from common.errors import UserError
from common.metrics.detection import Candidate
from tests.bundles.lung_two_stage.baselines.made import scan_of, write_crops


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


def seen(z: float, score: float, radius: float, x: float = 0.0) -> Candidate:
    return Candidate("a", (z, 0.0, x), score, radius)


def test_slices_of_one_nodule_become_one() -> None:
    """The surest (radius 5) takes in what is within 5 mm; the mean is weighted by score."""
    discs = [seen(-4.0, 0.2, 3.0), seen(0.0, 0.6, 5.0), seen(4.0, 0.4, 3.0), seen(11.0, 0.3, 3.0)]
    first, second = merge_candidates(discs)
    assert first.score == 0.6 and first.radius_mm == 5.0
    assert first.position_mm == pytest.approx(((-4 * 0.2 + 4 * 0.4) / 1.2, 0.0, 0.0))
    assert second == discs[3]


def test_the_larger_radius_decides() -> None:
    assert len(merge_candidates([seen(0.0, 0.9, 1.0), seen(4.0, 0.5, 6.0)])) == 1
    assert len(merge_candidates([seen(0.0, 0.9, 1.0), seen(4.0, 0.5, 3.0)])) == 2


def test_nothing_and_scores_of_zero() -> None:
    assert merge_candidates([]) == []
    (merged,) = merge_candidates([seen(0.0, 0.0, 4.0), seen(2.0, 0.0, 4.0)])
    assert merged.position_mm == pytest.approx((1.0, 0.0, 0.0))


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


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> CubeData:
    folder = write_crops(tmp_path_factory.mktemp("crops"))
    return CubeData(folder, CandidatePoints([BlobProposer()]), size=16, side_mm=11.2, depth=4, most=5)


def test_hits_are_those_of_luna() -> None:
    scan = scan_of([(0, 20, 24, 5)])
    (nodule,) = scan.nodules
    radius = nodule.diameter_mm / 2
    points = np.array([[0, 20, 24], [0, 20, 23.9 + radius], [0, 20, 24.1 + radius], [0, 24, 24]])
    assert hits_nodule(scan, points).tolist() == [True, True, False, True]
    assert not hits_nodule(scan_of([]), points).any()


def test_training_is_balanced_and_evaluation_is_complete(data: CubeData) -> None:
    train, test = data.train, data.test
    labels = [float(train[k]["label"]) for k in range(len(train))]
    assert labels == [1.0, 0.0] * len(train.positive) and len(train.positive) >= 4
    assert len(test) == len(test.labels) and test.labels.sum() >= 1
    items = [test[k] for k in range(len(test))]
    assert [bool(item["label"]) for item in items] == test.labels.tolist()
    assert items[0]["image"].shape == (1, 1, 16, 16)  # pictures are one slice deep
    assert items[0]["image"].dtype == torch.float32 and abs(float(items[0]["image"].mean())) <= 1


def test_preprocessing_takes_the_place_of_the_window(data: CubeData) -> None:
    half = [ScaleIntensityRanged("image", -1000, 400, -0.5, 0.5)]  # not clipped
    folder, points = data.dataset_dir, CandidatePoints([BlobProposer()])
    other = CubeData(folder, points, size=16, side_mm=11.2, depth=4, most=5, preprocessing=half)
    plain, halved = (set_.test[0]["image"] for set_ in (data, other))
    inside = plain.abs() < 1
    assert inside.any() and torch.allclose(halved[inside], plain[inside] / 2, atol=1e-5)


def test_a_visit_depends_on_epoch_and_sample_alone(data: CubeData) -> None:
    first, again, later = (data.train[SampleIndex(3, epoch)]["image"] for epoch in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, later)


def test_patients_and_metadata(data: CubeData) -> None:
    splits = data.metadata()["splits"]
    assert sum(len(part) for part in splits.values()) == 6
    assert data.metadata()["cube"] == {"size": 16, "side_mm": 11.2, "depth": 1, "step_mm": 2.0}
    assert "with, " in data.summary()


def test_an_empty_nodule_set_is_one_line(tmp_path: Path) -> None:
    folder = write_crops(tmp_path / "set", empty=True)
    with pytest.raises(UserError, match="training scans hold no nodules"):
        CubeData(folder, CandidatePoints([BlobProposer()]), size=16)


def test_excluded_findings_are_neither_with_nor_without_a_nodule() -> None:
    """A candidate in a nodule, one in a finding, one in both, one in none; all others may be drawn."""
    scan = scan_of([(0, 20, 24, 5)])
    finding = Nodule((0.0, 46.0, 44.0), (0.0, 46.0, 44.0), 8.0)
    beside = Nodule((0.0, 24.0, 24.0), (0.0, 24.0, 24.0), 4.0)
    points = np.array([[0, 20, 24], [0, 46, 44], [0, 23, 24], [0, 50, 10]])
    assert hits_nodule(scan, points, [finding]).tolist() == [False, True, False, False]
    for excluded, labels in (((), [1, 0, 1, 0]), ((finding, beside), [1, 1, 0])):
        known = replace(scan, excluded=excluded)
        cubes, result = _labelled(
            known, points, CubeShape(16, 16.0, 1), 0, False, 9, np.random.default_rng(0)
        )
        assert result.tolist() == labels and len(cubes) == len(labels)
