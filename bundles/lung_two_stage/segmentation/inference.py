"""A segmenter on whole scans: probabilities, masks and candidates; methods of Table I by name."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn

from bundles.lung_two_stage.segmentation.network import DenseUNet
from common.data.intensity import Window, to_network, to_unit
from common.data.nodules import NoduleScan, equivalent_diameter, label_pieces
from common.data.replay import ReplayTransforms, Transform
from common.data.samples import Sample
from common.data.transforms import recorded_transforms
from common.errors import UserError
from common.inference.checkpoint import load_weights, locate_by_name, model_info, model_window, network_for
from common.metrics.detection import DECISION, LEAST_SCORE, Candidate
from common.networks.state import evaluating

LEVELS = (DECISION, 0.25, 0.1, LEAST_SCORE)
"""Thresholds for candidates, from high to low; at a low threshold alone they would merge."""
WIDEST_MM = 60.0
"""Wider regions are no candidates: there the network is unsure everywhere."""
LEAST_VOXELS = 4
"""Smaller pieces are no candidates."""
BATCH_PIXELS = 2**19
"""Pixels of the slices that pass through the network together."""
HOW_TO_TRAIN = (
    "python -m monai.bundle run training --config_file bundles/lung_two_stage/configs/train_segmentation.yaml"
)


def network_input(hu: NDArray[Any], window: Window, preprocessing: Sequence[Transform] = ()) -> Tensor:
    """Slices in HU (N, H, W), or cubes (N, D, H, W), as a network's input (N, 1, ...), as it was in training.

    Args:
        window: HU of -1 and 1; for models of earlier versions, which name no transforms.
        preprocessing: of the training, see `common.data.transforms.recorded_transforms`.
    Raises:
        UserError: the transforms change the size, so that a mask would not fit its scan.

    Example:
        >>> network_input(np.array([[[-1000, -300, 400]]]), Window(-1000, 400))
        tensor([[[[-1.,  0.,  1.]]]])
    """
    if not preprocessing:
        return torch.from_numpy(to_network(to_unit(hu, window, is_hu=True)))[:, None]
    prepare = ReplayTransforms(preprocessing)
    images = torch.stack([prepare({"image": plane[None].astype(np.float32)}, 0)["image"] for plane in hu])
    if images.shape[2:] != hu.shape[1:]:
        raise UserError(
            f"the model's preprocessing makes slices of {tuple(images.shape[2:])} pixels of {hu.shape[1:]}; "
            "masks of whole scans need transforms that keep the size"
        )
    return images


def predict_probabilities(
    network: nn.Module, hu: NDArray[Any], window: Window, preprocessing: Sequence[Transform] = ()
) -> NDArray[np.float32]:
    """Nodule probabilities, float32 (N, H, W) in [0, 1].

    Args:
        network: maps images (B, 1, H, W) in [-1, 1] to logits (B, 1, H, W); its mode is restored.
        hu: (N, H, W).
        window, preprocessing: see `network_input`.
    """
    device = next(network.parameters()).device
    count = max(1, BATCH_PIXELS // int(np.prod(hu.shape[1:])))
    probabilities = np.empty(hu.shape, np.float32)
    with evaluating(network), torch.inference_mode():
        for start in range(0, len(hu), count):
            logits = network(network_input(hu[start : start + count], window, preprocessing).to(device))
            probabilities[start : start + count] = logits[:, 0].float().sigmoid().cpu().numpy()
    return probabilities


def mask_from(
    probabilities: NDArray[np.float32], threshold: float = DECISION, least_voxels: int = LEAST_VOXELS
) -> NDArray[np.uint8]:
    """Mask {0, 1} of the pieces with at least that probability and ``least_voxels``.

    Example:
        >>> probabilities = np.float32([[[0.9, 0.9, 0.1, 0.1, 0.1, 0.9]]])
        >>> mask_from(probabilities, least_voxels=2).tolist()
        [[[1, 1, 0, 0, 0, 0]]]
    """
    return (_pieces(probabilities, threshold, least_voxels)[0] > 0).astype(np.uint8)


def candidates_from(
    probabilities: NDArray[np.float32],
    scan: NoduleScan,
    levels: Sequence[float] = LEVELS,
    least_voxels: int = LEAST_VOXELS,
) -> list[Candidate]:
    """Candidates: the pieces of the masks at falling thresholds that contain no earlier candidate.

    The score is the largest probability in the piece, the position the centre of mass of the probabilities,
    the radius that of the sphere with the same volume (for single slices the disc with the same area).

    Args:
        probabilities: (Z, H, W) of the scan.
        scan: gives name and geometry.
        levels: thresholds, the highest first; the last is the least score of a candidate.
        least_voxels: smaller pieces are left out.
    """
    candidates, taken = list[Candidate](), np.zeros(probabilities.shape, bool)
    for level in levels:
        pieces, numbers = _pieces(probabilities, level, least_voxels)
        earlier = set(np.unique(pieces[taken]).tolist())
        boxes = ndimage.find_objects(pieces)
        for number in numbers:
            if number in earlier:
                continue
            box = boxes[number - 1]
            inside = pieces[box] == number
            candidate = _candidate(probabilities[box] * inside, inside, box, scan)
            if 2 * candidate.radius_mm <= WIDEST_MM:
                candidates.append(candidate)
                taken[box] |= inside
    return candidates


def _candidate(
    weights: NDArray[np.float32], inside: NDArray[np.bool_], box: tuple[slice, ...], scan: NoduleScan
) -> Candidate:
    """The candidate of a piece, given in its bounding box."""
    voxel = np.array(ndimage.center_of_mass(weights)) + [part.start for part in box]
    z, y, x = (float(value) for value in scan.in_mm(voxel))
    radius = equivalent_diameter(inside, scan.spacing, len(scan.hu) == 1) / 2
    return Candidate(scan.name, (z, y, x), float(weights.max()), radius)


class SegmentationMethod:
    """A segmenter as a method of Table I.

    Args:
        name: in the table.
        network: see `predict_probabilities`.
        window, preprocessing: as in training, see `network_input`.
    """

    def __init__(
        self,
        name: str,
        network: nn.Module,
        window: Window,
        preprocessing: Sequence[Transform] = (),
    ) -> None:
        self.name, self.network, self.window, self.preprocessing = name, network, window, preprocessing
        self._last: tuple[NoduleScan, NDArray[np.float32]] | None = None

    @classmethod
    def from_model(
        cls, name: str, ckpt_path: str | os.PathLike[str], device: torch.device | str = "cpu"
    ) -> SegmentationMethod:
        """Loads a trained segmenter with its window and its preprocessing.

        Raises:
            UserError: no such model, or one that cannot be read.
        """
        network = load_weights(network_for(ckpt_path, DenseUNet()), ckpt_path, HOW_TO_TRAIN)
        info = model_info(ckpt_path)
        return cls(name, network.to(device), model_window(info), recorded_transforms(info))

    def untrained(self, seed: int = 0) -> SegmentationMethod:
        """A copy with seeded initial weights, as a baseline."""
        network = copy.deepcopy(self.network)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for module in network.modules():
                if callable(reset := getattr(module, "reset_parameters", None)):
                    reset()
        return SegmentationMethod(f"untrained {self.name}", network, self.window, self.preprocessing)

    def candidates(self, scan: NoduleScan) -> list[Candidate]:
        """Candidates with any score, see `candidates_from`."""
        return candidates_from(self._probabilities(scan), scan)

    def masks(self, scan: NoduleScan) -> NDArray[np.uint8]:
        """The mask {0, 1} (Z, H, W)."""
        return mask_from(self._probabilities(scan))

    def _probabilities(self, scan: NoduleScan) -> NDArray[np.float32]:
        """Probabilities of the scan, kept until another scan comes."""
        if self._last is None or self._last[0] is not scan:
            probabilities = predict_probabilities(self.network, scan.hu, self.window, self.preprocessing)
            self._last = scan, probabilities
        return self._last[1]


def _pieces(
    probabilities: NDArray[np.float32], threshold: float, least_voxels: int
) -> tuple[NDArray[np.int32], list[int]]:
    """A label map of the pieces that are large enough, and their numbers."""
    pieces, count = label_pieces(probabilities >= threshold)
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)
    large = sizes >= least_voxels
    large[0] = False
    return np.where(large[pieces], pieces, 0).astype(np.int32), [int(n) for n in np.flatnonzero(large)]


OWN_NAME = "this method"
TRUSTED = "bundles.lung_two_stage."
SEGMENTER = "bundles.lung_two_stage.segmentation.inference.SegmentationMethod.from_model"


class Method(Protocol):
    """A trained method of Table I.

    Attributes:
        name: in the table.
    """

    name: str

    def candidates(self, scan: NoduleScan) -> list[Candidate]:
        """Where it detects nodules, in mm as the scan's own nodules."""

    def masks(self, scan: NoduleScan) -> NDArray[np.uint8] | None:
        """The nodules' mask {0, 1} (Z, H, W); None for a method that draws none."""


class EmptyMask:
    """The baseline that finds nothing."""

    name = "empty mask"

    def candidates(self, scan: NoduleScan) -> list[Candidate]:
        """No candidates."""
        return []

    def masks(self, scan: NoduleScan) -> NDArray[np.uint8]:
        """An empty mask."""
        return np.zeros(scan.hu.shape, np.uint8)


def load_method(name: str, ckpt_path: str | os.PathLike[str], device: torch.device | str = "cpu") -> Method:
    """Loads a trained method from its model's file.

    ``method`` in the model's JSON file is the dotted name of a callable of this bundle that takes ``(name,
    ckpt_path, device)``. Without that entry it is a segmenter.

    Raises:
        UserError: no such model, or its JSON names something else.

    Example:
        >>> from tempfile import mkdtemp
        >>> path = Path(mkdtemp()) / "model.pt"
        >>> torch.save(DenseUNet().state_dict(), path)
        >>> load_method("this method", path).window
        Window(lower=-1000, upper=400)
    """
    target = str(model_info(ckpt_path).get("method", SEGMENTER))
    make = locate_by_name(target) if target.startswith(TRUSTED) else None
    if not callable(make):
        raise UserError(
            f"{Path(ckpt_path).with_suffix('.json')}: '{target}' is no method of this bundle; "
            "delete the entry"
        )
    return cast(Method, make(name, ckpt_path, device))


def models_by_name(models: Mapping[str, str] | None, ckpt_path: str | os.PathLike[str]) -> dict[str, str]:
    """The models' files by their names in the table: ``models``, or the one at ``ckpt_path``.

    Raises:
        UserError: ``models`` is no mapping.

    Example:
        >>> models_by_name(None, "OUT/models/model.pt")
        {'this method': 'OUT/models/model.pt'}
    """
    if models is None:
        return {OWN_NAME: str(ckpt_path)}
    if not isinstance(models, Mapping):
        raise UserError(f"models {models!r}: give names and files, {{'U-Net': 'DIR/models/model.pt'}}")
    return {str(name): str(path) for name, path in models.items()}


def with_baselines(methods: Sequence[Method], seed: int = 0) -> list[Method]:
    """The methods, an untrained copy of the first segmenter, and the empty mask.

    Example:
        >>> [method.name for method in with_baselines([])]
        ['empty mask']
    """
    copies = [method.untrained(seed) for method in methods if hasattr(method, "untrained")]
    return [*methods, *copies[:1], EmptyMask()]


def check_unseen(models: Mapping[str, str | os.PathLike[str]], records: Sequence[Sample]) -> None:
    """Checks that no model was trained or validated on one of the patients.

    Raises:
        UserError: names one.

    Example:
        >>> check_unseen({"this method": "model.pt"}, [Sample(Path("a.mhd"), None, patient="a")])  # no error
    """
    patients = {record.patient for record in records}
    for path in models.values():
        splits = model_info(path).get("splits", {})
        known = {patient for name in ("train", "val") for patient in splits.get(name, [])} & patients
        if known:
            raise UserError(
                f"{path}: was trained with patient {min(known)}, one of those to evaluate on; "
                "give the data set and --split_seed of its training, or --heldout_dir"
            )
