"""Metrics of each structure of a label map: error, SSIM and contrast inside it, FID of crops around it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from common.data.labels import structure_mask
from common.metrics.bootstrap import Resamples, Value
from common.metrics.evaluate import CONTRAST_METRICS, join_metrics
from common.metrics.faithfulness import contrast_parts, mean_faithfulness, region_contrasts
from common.metrics.features import FeatureExtractor, extract
from common.metrics.fid import fid
from common.metrics.image_quality import SSIM_SMALLEST, ssim_map
from common.rng import make_rng

CROP_SIZE = 64  # pixels; crops are resized to it
MARGIN = 0.25  # of the structure's longer side, on each side of it


def structure_crops(images: Tensor, masks: Tensor) -> Tensor:
    """Cuts out each mask with its surroundings.

    Args:
        images, masks: (B, 1, H, W) and (B, 1, H, W) bool.
    Returns:
        (B, 1, CROP_SIZE, CROP_SIZE).
    Raises:
        ValueError: a mask is empty.
    """
    crops = []
    for image, mask in zip(images.float(), masks[:, 0], strict=True):
        top, left, side = crop_box(mask)
        crop = image[None, :, top : top + side, left : left + side]  # (1, 1, side, side)
        size = (CROP_SIZE, CROP_SIZE)
        crops.append(F.interpolate(crop, size, mode="bilinear", align_corners=False, antialias=True))
    return torch.cat(crops) if crops else images.new_zeros(0, 1, CROP_SIZE, CROP_SIZE)


def crop_box(mask: Tensor) -> tuple[int, int, int]:
    """Finds the square around a mask (H, W) bool with its margin: top, left and side in pixels.

    It is shifted into the image and no larger than the image's shorter side.

    Example:
        >>> mask = torch.zeros(60, 80, dtype=torch.bool)
        >>> mask[20:28, 30:50] = True  # side 20 + 2 * 5, centred on row 24 and column 40
        >>> crop_box(mask)
        (9, 25, 30)

    Raises:
        ValueError: the mask is empty.
    """
    rows, columns = (mask.any(axis).nonzero()[:, 0] for axis in (1, 0))
    if not len(rows):
        raise ValueError("an empty mask has no surroundings")
    low = [int(indices[0]) for indices in (rows, columns)]
    extent = [int(indices[-1]) + 1 - start for indices, start in zip((rows, columns), low, strict=True)]
    side = min(round(max(extent) * (1 + 2 * MARGIN)), *mask.shape)
    top, left = (
        min(max(start + (length - side) // 2, 0), whole - side)
        for start, length, whole in zip(low, extent, mask.shape, strict=True)
    )
    return top, left, side


OVERALL = "structure_faithfulness"


class StructureEvaluator:
    """Measures predictions in each structure against real images.

    A slice counts for a structure if it shows enough of it, see `common.data.labels.structure_mask`.

    Args:
        images: real images (N, 1, H, W) in [-1, 1].
        labels: class indices (N, 1, H, W), 0 for the background, k for ``structures[k - 1]``.
        structures: names of the classes.
        extractor: for the FID of crops, on ``device`` already.
        patients: one id per image; None for independent images.
        seed: of the bootstrap.
        resamples: of the bootstrap-t.

    Example:
        >>> from common.metrics.features import RandomVGG
        >>> images, labels = torch.full((4, 1, 32, 32), -0.8), torch.zeros(4, 1, 32, 32)
        >>> labels[..., 10:20, 10:20] = 1
        >>> images = images + labels
        >>> evaluator = StructureEvaluator(images, labels, ["LV"], RandomVGG(), list("aabb"), resamples=20)
        >>> result = structures_with_baselines(evaluator, images, {"flat": torch.zeros_like(images)})
        >>> overall = result["metrics"]["structure_faithfulness"]
        >>> overall["mean"], overall["baselines"]["flat"]["mean"], result["structures"]["LV"]["mse"]["mean"]
        (1.0, 0.0, 0.0)
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        structures: Sequence[str],
        extractor: FeatureExtractor,
        patients: Sequence[str] | None = None,
        seed: int = 0,
        resamples: int = 1000,
        batch_size: int = 16,
        device: torch.device | str = "cpu",
    ) -> None:
        self.images, self.labels, self.structures = images, labels, list(structures)
        self.extractor, self.batch_size, self.device = extractor, batch_size, device
        self.resamples = Resamples.draw(patients, len(images), resamples, make_rng(seed, "bootstrap"))
        self.present = torch.cat([masks.flatten(2).any(2) for masks, _ in self._batches(images)])  # (N, K)
        self.features = self._features(images)

    def __call__(self, sets: Mapping[str, Tensor]) -> dict[str, tuple[Value, dict[str, dict[str, Value]]]]:
        """Measures several sets of predictions (N, 1, H, W) in [-1, 1]; the regions are computed once.

        Returns:
            By the set's name: the mean faithfulness over structures, and ``{structure: {metric: value}}``.
        """
        real, *contrasts = self._contrasts([self.images, *sets.values()])  # (N, K) each
        usable = ~real.isnan().all(1)
        results = {}
        for (name, images), drawn in zip(sets.items(), contrasts, strict=True):
            parts = contrast_parts(drawn, real)[usable]
            overall = self.resamples.subset(usable).ratio(parts, mean_faithfulness)
            results[name] = overall, self._values(images, drawn, real)
        return results

    def _values(self, images: Tensor, drawn: Tensor, real: Tensor) -> dict[str, dict[str, Value]]:
        """Computes every metric of one set in each structure, from its images and its contrasts (N, K)."""
        features, pixels = self._features(images), self._pixels(images)
        results = {}
        for index, structure in enumerate(self.structures):
            has = self.present[:, index]
            here = self.resamples.subset(has)
            frechet = partial(_weighted_fid, self.features[index], features[index])
            usable = ~real[:, index].isnan()
            parts = contrast_parts(drawn[:, index], real[:, index])[usable]
            measurable = self.resamples.subset(usable)
            results[structure] = {
                f"fid_{self.extractor.name}": here.distance(frechet).at_least(0),
                **{name: here.mean(means[has, index]) for name, means in pixels.items()},
                **{name: measurable.ratio(parts, metric) for name, metric in CONTRAST_METRICS.items()},
            }
        return results

    def _features(self, images: Tensor) -> list[Tensor]:
        """Features of the crops around each structure: K times (slices with it, D)."""
        parts: list[list[Tensor]] = [[] for _ in self.structures]
        for masks, batch in self._batches(images):
            for features, mask in zip(parts, masks.split(1, dim=1), strict=True):
                has = mask.flatten(1).any(1)
                if has.any():
                    crops = structure_crops(batch[has], mask[has])
                    features.append(extract(self.extractor, crops, self.batch_size, self.device))
        return [torch.cat([torch.zeros(0, self.extractor.dimension), *features]) for features in parts]

    def _contrasts(self, sets: Sequence[Tensor]) -> Tensor:
        """(sets, N, K) float64; NaN if a slice shows too little of a structure or of its surroundings."""
        batches = zip(*(images.split(self.batch_size) for images in (self.labels, *sets)), strict=True)
        parts = [
            torch.stack([region_contrasts(images, mask) for mask in self._masks(labels).split(1, dim=1)], 2)
            for labels, *images in batches
        ]
        return torch.cat(parts, dim=1)

    @torch.inference_mode()
    def _pixels(self, images: Tensor) -> dict[str, Tensor]:
        """The means of the squared error and of SSIM over each structure's pixels: (N, K) float64 each."""
        parts: dict[str, list[Tensor]] = {}
        batches = zip(self._batches(self.images), images.split(self.batch_size), strict=True)
        for (masks, real), drawn in batches:
            real, drawn = real.float(), drawn.float()
            maps = {"ssim": ssim_map(drawn, real)} if min(real.shape[-2:]) >= SSIM_SMALLEST else {}
            maps["mse"] = (drawn - real).square()
            for name, values in maps.items():  # (B, 1, H, W)
                means = (values.double() * masks).sum((2, 3)) / masks.sum((2, 3))
                parts.setdefault(name, []).append(means)
        return {name: torch.cat(means) for name, means in parts.items()}

    def _batches(self, images: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields masks (B, K, H, W) bool and images (B, 1, H, W)."""
        batches = zip(self.labels.split(self.batch_size), images.split(self.batch_size), strict=True)
        for labels, batch in batches:
            yield self._masks(labels), batch

    def _masks(self, labels: Tensor) -> Tensor:
        return torch.cat([structure_mask(labels, index + 1) for index in range(len(self.structures))], dim=1)


def structures_with_baselines(
    evaluator: StructureEvaluator, predictions: Tensor, baselines: Mapping[str, Tensor]
) -> dict[str, Any]:
    """Evaluates a model in each structure beside the baselines; example in `StructureEvaluator`.

    Returns:
        Plain data in the form of `common.metrics.evaluate.join_metrics`: ``{"metrics":
        {"structure_faithfulness": {...}}, "structures": {STRUCTURE: {METRIC: {...}}}}``.
    """
    model, *others = evaluator({"": predictions, **baselines}).values()
    overall = {name: {OVERALL: result[0]} for name, result in zip(baselines, others, strict=True)}
    structures = {
        structure: join_metrics(
            model[1][structure],
            {name: result[1][structure] for name, result in zip(baselines, others, strict=True)},
        )
        for structure in evaluator.structures
    }
    return {"metrics": join_metrics({OVERALL: model[0]}, overall), "structures": structures}


def _weighted_fid(real: Tensor, drawn: Tensor, weights: Tensor) -> float:
    return fid(real, drawn, weights, weights)
