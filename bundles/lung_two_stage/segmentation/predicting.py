"""A segmenter on whole scans: probabilities, masks, and candidates out of them."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import nn

from bundles.lung_two_stage.segmentation.network import DenseUNet
from common.data.intensity import Window, to_network, to_unit
from common.data.nodule_scan import NoduleScan, mask_diameter, pieces_of
from common.inference.models import load_weights, model_info, model_window, network_for
from common.metrics.froc import DECISION, LEAST_SCORE, Candidate
from common.training.modes import evaluating

LEVELS = (DECISION, 0.25, 0.1, LEAST_SCORE)
"""Probabilities at which pieces are looked for, the surest first: at a low cut alone they run together."""
WIDEST_MM = 60.0
"""What is wider is no nodule but a network's general doubt."""
LEAST_VOXELS = 4
"""Smaller pieces are no candidates."""
BATCH_PIXELS = 2**19
"""Of slices that pass through the network together."""
HOW_TO_TRAIN = (
    "python -m monai.bundle run training --config_file bundles/lung_two_stage/configs/train_segmentation.yaml"
)


def predict_probabilities(network: nn.Module, hu: NDArray[np.generic], window: Window) -> NDArray[np.float32]:
    """How probable a nodule is at each pixel: HU (N, H, W) -> float32 (N, H, W) in [0, 1].

    Args:
        network: images (B, 1, H, W) in [-1, 1] -> logits (B, 1, H, W); its mode stays as it was.
        window: HU of -1 and 1, as in training.
    """
    device = next(network.parameters()).device
    count = max(1, BATCH_PIXELS // int(np.prod(hu.shape[1:])))
    found = np.empty(hu.shape, np.float32)
    with evaluating(network), torch.inference_mode():
        for start in range(0, len(hu), count):
            images = to_network(to_unit(hu[start : start + count], window, is_hu=True))[:, None]
            logits = network(torch.from_numpy(images).to(device))
            found[start : start + count] = logits[:, 0].float().sigmoid().cpu().numpy()
    return found


def predict_masks(
    network: nn.Module,
    hu: NDArray[np.generic],
    window: Window,
    threshold: float = DECISION,
    least_voxels: int = LEAST_VOXELS,
) -> NDArray[np.uint8]:
    """Nodule masks uint8 {0, 1} (N, H, W) of HU (N, H, W), see `mask_from`."""
    return mask_from(predict_probabilities(network, hu, window), threshold, least_voxels)


def mask_from(
    probabilities: NDArray[np.float32], threshold: float = DECISION, least_voxels: int = LEAST_VOXELS
) -> NDArray[np.uint8]:
    """Where a nodule is as probable as ``threshold``, pieces below ``least_voxels`` left out."""
    return (_pieces(probabilities, threshold, least_voxels)[0] > 0).astype(np.uint8)


def candidates_from(
    probabilities: NDArray[np.float32],
    scan: NoduleScan,
    levels: Sequence[float] = LEVELS,
    least_voxels: int = LEAST_VOXELS,
) -> list[Candidate]:
    """One candidate for each piece of the masks at falling levels that holds none of those before.

    Its score is the largest probability within, its position the centre of mass of the probabilities, its
    radius that of the sphere of equal volume (in pictures of the disc of equal area).

    Args:
        levels: probabilities, the highest first; the last is the least score of a candidate.
    """
    found, taken = list[Candidate](), np.zeros(probabilities.shape, bool)
    for level in levels:
        pieces, numbers = _pieces(probabilities, level, least_voxels)
        known = set(np.unique(pieces[taken]).tolist())
        boxes = ndimage.find_objects(pieces)
        for number in numbers:
            if number in known:
                continue
            box = boxes[number - 1]
            inside = pieces[box] == number
            candidate = _candidate(probabilities[box] * inside, inside, box, scan)
            if 2 * candidate.radius_mm <= WIDEST_MM:
                found.append(candidate)
                taken[box] |= inside
    return found


def _candidate(
    weights: NDArray[np.float32], inside: NDArray[np.bool_], box: tuple[slice, ...], scan: NoduleScan
) -> Candidate:
    """A piece in its box."""
    voxel = np.array(ndimage.center_of_mass(weights)) + [part.start for part in box]
    z, y, x = (float(value) for value in scan.in_mm(voxel))
    radius = mask_diameter(inside, scan.spacing, len(scan.hu) == 1) / 2
    return Candidate(scan.name, (z, y, x), float(weights.max()), radius)


class SegmentationMethod:
    """A method of Table I: the pieces of a segmenter's masks.

    Args:
        name: as the table shows it.
        network: see `predict_probabilities`.
        window: as in training.
        threshold, least_voxels: see `mask_from`; candidates have levels of their own.
    """

    def __init__(
        self,
        name: str,
        network: nn.Module,
        window: Window,
        threshold: float = DECISION,
        least_voxels: int = LEAST_VOXELS,
    ) -> None:
        self.name, self.network, self.window = name, network, window
        self.threshold, self.least_voxels = threshold, least_voxels
        self._seen: tuple[NoduleScan, NDArray[np.float32]] | None = None

    @classmethod
    def from_model(
        cls, name: str, ckpt_path: str | os.PathLike[str], device: torch.device | str = "cpu"
    ) -> SegmentationMethod:
        """A trained one, with the window that it was trained with.

        Raises:
            UserError: no such model, or one that cannot be read.
        """
        network = load_weights(network_for(ckpt_path, DenseUNet()), ckpt_path, HOW_TO_TRAIN)
        return cls(name, network.to(device), model_window(model_info(ckpt_path)))

    def untrained(self, seed: int = 0) -> SegmentationMethod:
        """A copy with first weights, seeded: what training has to beat."""
        network = copy.deepcopy(self.network)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for module in network.modules():
                if callable(reset := getattr(module, "reset_parameters", None)):
                    reset()
        return SegmentationMethod(
            f"untrained {self.name}", network, self.window, self.threshold, self.least_voxels
        )

    def candidates(self, scan: NoduleScan) -> list[Candidate]:
        """The pieces of its probabilities, unsure ones too; see `candidates_from`."""
        return candidates_from(self._probabilities(scan), scan, least_voxels=self.least_voxels)

    def masks(self, scan: NoduleScan) -> NDArray[np.uint8]:
        """Its mask {0, 1} (Z, H, W)."""
        return mask_from(self._probabilities(scan), self.threshold, self.least_voxels)

    def _probabilities(self, scan: NoduleScan) -> NDArray[np.float32]:
        """Of the scan, computed once for both questions."""
        if self._seen is None or self._seen[0] is not scan:
            self._seen = scan, predict_probabilities(self.network, scan.hu, self.window)
        return self._seen[1]


def _pieces(
    probabilities: NDArray[np.float32], threshold: float, least_voxels: int
) -> tuple[NDArray[np.int32], list[int]]:
    """The mask's pieces, numbered, and the numbers of those that are large enough; the others are 0."""
    pieces, count = pieces_of(probabilities >= threshold)
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)
    large = sizes >= least_voxels
    large[0] = False
    return np.where(large[pieces], pieces, 0).astype(np.int32), [int(n) for n in np.flatnonzero(large)]
