from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from torch import nn

from bundles.lung_two_stage.baselines.candidate_classifier import (
    BlobProposer,
    ClassifiedCandidates,
    VggClassifier,
    voxels_of,
)
from bundles.lung_two_stage.baselines.candidates import CubeShape
from bundles.lung_two_stage.baselines.detector import decode_boxes
from bundles.lung_two_stage.segmentation.inference import LEVELS
from common.data.intensity import Window
from common.data.nodules import NoduleScan
from common.errors import UserError
from common.metrics.detection import LEAST_SCORE, Candidate, TrueNodule, froc
from tests.bundles.lung_two_stage.baselines.made import scan_of


class CentreBrightness(nn.Module):
    """Calls bright centres nodules; the logit is five times the mean of the middle."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(5.0))

    def forward(self, cubes: torch.Tensor) -> torch.Tensor:
        return self.scale * cubes[:, 0, :, 14:18, 14:18].mean((1, 2, 3))[:, None]


class Certain(CentreBrightness):
    """Calls everything a nodule."""

    def forward(self, cubes: torch.Tensor) -> torch.Tensor:
        return self.scale * torch.full((len(cubes), 1), 20.0)


WINDOW = Window(-1000, 400)


def method() -> ClassifiedCandidates:
    proposer = BlobProposer(least=25)
    return ClassifiedCandidates("blobs", CentreBrightness(), proposer, CubeShape(), WINDOW)


def test_candidates_of_a_volume_lie_in_its_nodules() -> None:
    scan = scan_of([(8, 20, 28, 6), (9, 44, 14, 4)], (16, 64, 64))
    candidates = sorted(method().candidates(scan), key=lambda c: -c.radius_mm)
    truth = [TrueNodule(scan.name, n.centre_mm, n.diameter_mm) for n in scan.nodules]
    result = froc(candidates, truth, [scan.name], resamples=5)
    assert result.sensitivity.mean == 1.0 and result.candidates.mean == 2.0
    assert np.abs(voxels_of(candidates, scan)[0] - [8, 20, 28]).max() <= 1
    assert all(0.5 <= candidate.score <= 1 for candidate in candidates)


def test_scores_may_be_weighed_by_the_proposers() -> None:
    class Sure:
        def candidates(self, scan: NoduleScan) -> list[Candidate]:
            return [Candidate(scan.name, (0.0, 32.0, 32.0), 0.25, 5.0)]

    scan = scan_of([(0, 32, 32, 6)])
    plain, weighed = (
        ClassifiedCandidates("x", CentreBrightness(), Sure(), CubeShape(), WINDOW, weigh).candidates(scan)
        for weigh in (False, True)
    )
    assert weighed[0].score == pytest.approx(0.25 * plain[0].score) and plain[0].score > 0.8


def test_what_the_classifier_doubts_is_dropped() -> None:
    scan, proposer = scan_of([(0, 20, 28, 6)]), BlobProposer(least=25)
    kept = [
        ClassifiedCandidates("x", CentreBrightness(), proposer, CubeShape(), WINDOW, threshold=threshold)
        for threshold in (0.0, 0.5, 1.0)  # and without: the cut of all methods
    ]
    counts = [len(one.candidates(scan)) for one in kept]
    assert counts[0] >= counts[1] == 1 and counts[2] == 0


def test_all_methods_cut_alike() -> None:
    """A candidate of probability 0.1 is one for everybody, one of 0.04 for nobody."""
    cuts = {
        inspect.signature(part).parameters[name].default
        for part, name in (
            (ClassifiedCandidates.__init__, "threshold"),
            (decode_boxes, "least"),
        )
    }
    assert cuts == {LEAST_SCORE} == {LEVELS[-1]} and LEAST_SCORE < 0.1

    class Doubtful:
        def candidates(self, scan: NoduleScan) -> list[Candidate]:
            positions = [(0.0, 32.0, 32.0), (0.0, 10.0, 10.0)]
            return [
                Candidate(scan.name, position, score, 3.0)
                for position, score in zip(positions, (0.1, 0.04), strict=True)
            ]

    weighed = ClassifiedCandidates("x", Certain(), Doubtful(), CubeShape(), WINDOW, weigh=True)
    assert [round(c.score, 3) for c in weighed.candidates(scan_of([(0, 32, 32, 6)]))] == [0.1]


def test_a_scan_without_candidates_has_none() -> None:
    empty = scan_of([])
    still = NoduleScan(np.full_like(empty.hu, -850), empty.mask, empty.spacing, "still", "still", ())
    assert method().candidates(still) == []


@pytest.mark.parametrize("depth", [1, 2, 5, 8])
@pytest.mark.parametrize("dims", [2, 3])
def test_any_depth(dims: int, depth: int) -> None:
    network = VggClassifier(dims, widths=(4, 8, 8), hidden=8)
    assert network(torch.randn(3, 1, depth, 16, 16)).shape == (3, 1)


def test_patches_see_the_middle_slice_alone() -> None:
    network, cubes = VggClassifier(2, widths=(4, 8), hidden=8).eval(), torch.randn(2, 1, 5, 16, 16)
    changed = cubes.clone()
    changed[:, :, [0, 1, 3, 4]] = 0.0
    assert torch.equal(network(cubes), network(changed))
    changed[:, :, 2] = 0.0
    assert not torch.equal(network(cubes), network(changed))


def test_other_dimensions_are_refused() -> None:
    with pytest.raises(UserError, match="spatial_dims 4"):
        VggClassifier(4)
