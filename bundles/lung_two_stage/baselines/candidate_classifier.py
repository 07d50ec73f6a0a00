"""Classifiers of candidates, baselines of Table I: CNN + VGG on blobs, 3-D false-positive reduction."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
import torch
from monai.networks.blocks import Convolution
from numpy.typing import NDArray
from torch import Tensor, nn

from bundles.lung_two_stage.baselines.candidates import CubeShape, cut_cubes, find_blobs, merge_candidates
from bundles.lung_two_stage.baselines.detector import DetectedNodules
from bundles.lung_two_stage.segmentation.inference import network_input
from common.data.intensity import Window
from common.data.nodules import NoduleScan
from common.data.replay import Transform
from common.data.transforms import recorded_transforms
from common.errors import UserError
from common.inference.checkpoint import load_weights, model_info, model_window, network_for
from common.metrics.detection import LEAST_SCORE, Candidate
from common.networks.state import evaluating


class VggClassifier(nn.Module):
    """A small VGG that maps cubes (B, 1, D, S, S) in [-1, 1], of any depth, to logits (B, 1) of a nodule.

    Args:
        spatial_dims: 2 to use a cube's middle slice only, 3 for the whole cube.
        widths: channels of each block of two convolutions; after each the size halves in the plane, from the
            second on in depth as well, down to one slice.
        hidden: units of the dense layer.
        dropout: before the last layer.
    Raises:
        UserError: other dimensions.

    Example:
        >>> VggClassifier(3, widths=(4, 8))(torch.zeros(2, 1, 8, 16, 16)).shape
        torch.Size([2, 1])
    """

    def __init__(
        self,
        spatial_dims: int = 2,
        widths: Sequence[int] = (16, 32, 64),
        hidden: int = 64,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        if spatial_dims not in (2, 3):
            raise UserError(f"VggClassifier: spatial_dims {spatial_dims}; give 2 for patches or 3 for cubes")
        self.spatial_dims = spatial_dims
        channels, layers = 1, list[nn.Module]()
        pools = {2: nn.MaxPool2d(2), 3: nn.MaxPool3d((1, 2, 2), ceil_mode=True)}  # a single slice stays
        for width in widths:
            block = (
                Convolution(spatial_dims, source, width, act="relu", norm="batch", adn_ordering="NA")
                for source in (channels, width)
            )
            layers += [nn.Sequential(*block), pools[spatial_dims]]
            channels, pools[3] = width, nn.MaxPool3d(2, ceil_mode=True)
        self.features = nn.Sequential(*layers)
        average = nn.AdaptiveAvgPool2d(1) if spatial_dims == 2 else nn.AdaptiveAvgPool3d(1)
        dense = [nn.Linear(channels, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, 1)]
        self.head = nn.Sequential(average, nn.Flatten(), *dense)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 1, D, S, S) -> (B, 1)."""
        inputs = images[:, :, images.shape[2] // 2] if self.spatial_dims == 2 else images
        logits: Tensor = self.head(self.features(inputs))
        return logits


BATCH = 64
EXTRA_BLOBS = 10
"""Blobs of a scan that are added to a detector's candidates for training."""
HOW_TO_TRAIN = (
    "python -m monai.bundle run training --config_file "
    "\"['bundles/lung_two_stage/configs/train_segmentation.yaml','bundles/lung_two_stage/configs/cnn_vgg.yaml']\""
)


class Proposer(Protocol):
    """Finds more candidates than there are nodules."""

    def candidates(self, scan: NoduleScan) -> list[Candidate]:
        """The candidates of a scan, by falling score."""


class BlobProposer:
    """Proposes bright blobs, see `bundles.lung_two_stage.baselines.candidates.find_blobs`.

    Args:
        least: least strength in HU.
        most: blobs of a scan at most.
        air_share: least share of aerated voxels around a blob; not used where HU are nominal.
    """

    def __init__(self, least: float = 25.0, most: int = 200, air_share: float = 0.1) -> None:
        self.least, self.most, self.air_share = least, most, air_share

    def candidates(self, scan: NoduleScan) -> list[Candidate]:
        """Blobs as candidates, with their strength in HU as score."""
        air_share = 0.0 if scan.nominal_hu else self.air_share
        blobs = find_blobs(scan.hu, scan.spacing, self.least, self.most, air_share)
        positions = scan.in_mm(blobs.centres.astype(np.float64))
        return [
            Candidate(scan.name, (float(z), float(y), float(x)), float(strength), float(radius))
            for (z, y, x), strength, radius in zip(positions, blobs.strengths, blobs.radii, strict=True)
        ]


class CandidatePoints:
    """The candidates of several proposers as voxels, the points of a `CubeDataset`.

    Example:
        >>> mask = np.zeros((1, 16, 16), np.uint8)
        >>> scan = NoduleScan(mask.astype(np.int16) - 850, mask, (1.0, 1.0, 1.0), "a", "a", ())
        >>> CandidatePoints.of(None)(scan).shape  # an even slice has no blobs
        (0, 3)
    """

    def __init__(self, proposers: Sequence[Proposer]) -> None:
        self.proposers = list(proposers)

    @classmethod
    def of(cls, detector: str | None, device: torch.device | str = "cpu") -> CandidatePoints:
        """Candidates to train a classifier with: blobs, or those of a trained detector.

        A few blobs are added to the latter, since a detector may make no mistake on its training scans.

        Raises:
            UserError: there is no model, or it cannot be read.
        """
        proposer = proposer_of(detector, device)
        return cls([proposer, BlobProposer(most=EXTRA_BLOBS)] if detector else [proposer])

    def __call__(self, scan: NoduleScan) -> NDArray[np.float64]:
        """The candidates of a scan as (N, 3) voxels (slice, row, column)."""
        return np.concatenate([voxels_of(one.candidates(scan), scan) for one in self.proposers])


class ClassifiedCandidates:
    """A method of Table I: candidates of a proposer, scored by a classifier of cubes.

    Args:
        name: in the table.
        network: maps cubes (B, 1, D, S, S) to logits (B, 1).
        proposer: finds the candidates.
        shape, window, preprocessing: of the cubes, as in training.
        weigh: the score is the classifier's probability times the proposer's score; else the probability.
        threshold: candidates with a lower score are dropped.
    """

    def __init__(
        self,
        name: str,
        network: nn.Module,
        proposer: Proposer,
        shape: CubeShape,
        window: Window,
        weigh: bool = False,
        threshold: float = LEAST_SCORE,
        preprocessing: Sequence[Transform] = (),
    ) -> None:
        self.name, self.network, self.proposer, self.preprocessing = name, network, proposer, preprocessing
        self.shape, self.window, self.weigh, self.threshold = shape, window, weigh, threshold

    @classmethod
    def from_model(
        cls, name: str, ckpt_path: str | os.PathLike[str], device: torch.device | str = "cpu"
    ) -> ClassifiedCandidates:
        """Loads a trained classifier of blobs, or of a detector's candidates if the model has a ``detector``.

        Raises:
            UserError: there is no model, or it cannot be read.
        """
        info = model_info(ckpt_path)
        network = load_weights(network_for(ckpt_path, VggClassifier()), ckpt_path, HOW_TO_TRAIN)
        proposer = proposer_of(info.get("detector"), device)
        shape = CubeShape(**info.get("cube", {}))
        weigh = bool(info.get("detector"))
        transforms = recorded_transforms(info)
        return cls(
            name, network.to(device), proposer, shape, model_window(info), weigh, preprocessing=transforms
        )

    def candidates(self, scan: NoduleScan) -> list[Candidate]:
        """The candidates that the classifier keeps, merged, with scores from 0 to 1."""
        proposed = self.proposer.candidates(scan)
        probabilities = self._probabilities(scan, voxels_of(proposed, scan))
        scored = [
            replace(candidate, score=probability * (candidate.score if self.weigh else 1.0))
            for candidate, probability in zip(proposed, probabilities, strict=True)
        ]
        return merge_candidates([candidate for candidate in scored if candidate.score >= self.threshold])

    def masks(self, scan: NoduleScan) -> NDArray[np.uint8] | None:
        """None: the method draws no masks."""
        return None

    def _probabilities(self, scan: NoduleScan, voxels: NDArray[np.float64]) -> list[float]:
        device = next(self.network.parameters()).device
        probabilities: list[float] = []
        for start in range(0, len(voxels), BATCH):
            cubes = cut_cubes(scan, voxels[start : start + BATCH], self.shape)  # (B, D, S, S)
            images = network_input(cubes, self.window, self.preprocessing)  # (B, 1, D, S, S)
            with evaluating(self.network), torch.inference_mode():
                probabilities += self.network(images.to(device))[:, 0].sigmoid().tolist()
        return probabilities


def proposer_of(detector: str | None, device: torch.device | str = "cpu") -> Proposer:
    """The detector at this path, or blobs without one.

    Raises:
        UserError: there is no model, or it cannot be read.
    """
    return BlobProposer() if not detector else DetectedNodules.from_model("proposer", detector, device)


def voxels_of(candidates: Sequence[Candidate], scan: NoduleScan) -> NDArray[np.float64]:
    """The positions of candidates as (N, 3) voxels (slice, row, column)."""
    positions = np.array([candidate.position_mm for candidate in candidates], np.float64).reshape(-1, 3)
    return np.asarray(positions / np.asarray(scan.spacing))
