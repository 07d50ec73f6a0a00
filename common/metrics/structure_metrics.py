"""Inside each structure of a label map: error, similarity and contrast, and the look of what surrounds it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from common.data.labels import structure_mask
from common.metrics.bootstrap import Resamples, Value
from common.metrics.evaluate import CONTRAST_METRICS, compared
from common.metrics.faithfulness import contrast_parts, mean_faithfulness, region_contrasts
from common.metrics.features import FeatureExtractor, extract
from common.metrics.fid import fid
from common.metrics.image_quality import SSIM_SMALLEST, ssim_map
from common.rng import make_rng

CROP_SIZE = 64  # pixels; crops are resized to it
MARGIN = 0.25  # of the structure's longer side, left on each side of it


def structure_crops(images: Tensor, masks: Tensor) -> Tensor:
    """The surroundings of each mask: (B, 1, H, W) and (B, 1, H, W) bool -> (B, 1, CROP_SIZE, CROP_SIZE).

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
    """The square around a mask (H, W) bool with its margin: top, left and side in pixels.

    It is moved into the image where it would stick out, and no larger than the image's shorter side.

    Raises:
        ValueError: the mask is empty.
    """
    rows, columns = (mask.any(axis).nonzero()[:, 0] for axis in (1, 0))
    if not len(rows):
        raise ValueError("an empty mask has no surroundings")
    low = [int(places[0]) for places in (rows, columns)]
    extent = [int(places[-1]) + 1 - start for places, start in zip((rows, columns), low, strict=True)]
    side = min(round(max(extent) * (1 + 2 * MARGIN)), *mask.shape)
    top, left = (
        min(max(start + (length - side) // 2, 0), whole - side)
        for start, length, whole in zip(low, extent, mask.shape, strict=True)
    )
    return top, left, side


OVERALL = "structure_faithfulness"


class StructureEvaluator:
    """Measures predictions inside each structure of one set of real images.

    A slice counts for a structure where it has enough of it, see `common.data.labels.structure_mask`.

    Args:
        images: real images (N, 1, H, W) in [-1, 1].
        labels: class indices (N, 1, H, W), 0 for the background, k for ``structures[k - 1]``.
        structures: names of the classes.
        extractor: for the FID of crops, on ``device`` already.
        patients: one id an image; None for images that are each their own patient's.
        seed: of the bootstrap.
        resamples: of the bootstrap-t.
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
        """All sets of predictions (N, 1, H, W) in [-1, 1] at once: regions are found once for all of them.

        Returns:
            By the set's name: the mean faithfulness over structures, and ``{structure: {metric: value}}``.
        """
        real, *contrasts = self._contrasts([self.images, *sets.values()])
        return {
            name: (self._mean_faithfulness(drawn, real), self._values(images, drawn, real))
            for (name, images), drawn in zip(sets.items(), contrasts, strict=True)
        }

    def _mean_faithfulness(self, drawn: Tensor, real: Tensor) -> Value:
        """Of contrasts (N, K), over the slices with any structure."""
        used = ~real.isnan().all(1)
        return self.resamples.subset(used).ratio(contrast_parts(drawn, real)[used], mean_faithfulness)

    def _values(self, images: Tensor, drawn: Tensor, real: Tensor) -> dict[str, dict[str, Value]]:
        """Every metric of one set in each structure."""
        features, pixels = self._features(images), self._pixels(images)
        found = {}
        for index, structure in enumerate(self.structures):
            has = self.present[:, index]
            found[structure] = {
                f"fid_{self.extractor.name}": self._frechet(has, self.features[index], features[index]),
                **{
                    name: self.resamples.subset(has).mean(means[has, index]) for name, means in pixels.items()
                },
                **self._contrast_values(drawn[:, index], real[:, index]),
            }
        return found

    def _frechet(self, has: Tensor, real: Tensor, drawn: Tensor) -> Value:
        statistic = partial(_weighted_fid, real, drawn)
        return self.resamples.subset(has).distance(statistic).at_least(0)

    def _contrast_values(self, drawn: Tensor, real: Tensor) -> dict[str, Value]:
        used = ~real.isnan()
        parts, here = contrast_parts(drawn, real)[used], self.resamples.subset(used)
        return {name: here.ratio(parts, metric) for name, metric in CONTRAST_METRICS.items()}

    def _features(self, images: Tensor) -> list[Tensor]:
        """Of the crops around each structure: K times (slices with it, D)."""
        found: list[list[Tensor]] = [[] for _ in self.structures]
        for masks, batch in self._batches(images):
            for features, mask in zip(found, masks.split(1, dim=1), strict=True):
                has = mask.flatten(1).any(1)
                if has.any():
                    crops = structure_crops(batch[has], mask[has])
                    features.append(extract(self.extractor, crops, self.batch_size, self.device))
        return [torch.cat([torch.zeros(0, self.extractor.dimension), *features]) for features in found]

    def _contrasts(self, sets: Sequence[Tensor]) -> Tensor:
        """(sets, N, K) float64; NaN where a slice has not enough of a structure or of its surroundings."""
        batches = zip(*(images.split(self.batch_size) for images in (self.labels, *sets)), strict=True)
        found = [
            torch.stack([region_contrasts(images, mask) for mask in self._masks(labels).split(1, dim=1)], 2)
            for labels, *images in batches
        ]
        return torch.cat(found, dim=1)

    @torch.inference_mode()
    def _pixels(self, images: Tensor) -> dict[str, Tensor]:
        """The mean over each structure's pixels of the squared error and of SSIM: (N, K) float64 each."""
        found: dict[str, list[Tensor]] = {}
        for (masks, real), drawn in zip(
            self._batches(self.images), images.split(self.batch_size), strict=True
        ):
            for name, function in pixel_functions(real).items():
                values = function(drawn.float(), real.float()).double()  # (B, 1, H, W)
                found.setdefault(name, []).append((values * masks).sum((2, 3)) / masks.sum((2, 3)))
        return {name: torch.cat(parts) for name, parts in found.items()}

    def _batches(self, images: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Masks (B, K, H, W) bool and images (B, 1, H, W)."""
        for labels, batch in zip(
            self.labels.split(self.batch_size), images.split(self.batch_size), strict=True
        ):
            yield self._masks(labels), batch

    def _masks(self, labels: Tensor) -> Tensor:
        return torch.cat([structure_mask(labels, index + 1) for index in range(len(self.structures))], dim=1)


def structures_with_baselines(
    evaluator: StructureEvaluator, predictions: Tensor, baselines: Mapping[str, Tensor]
) -> dict[str, Any]:
    """The model's metrics in each structure, each beside those of the baselines.

    Returns:
        Plain data in the form of `common.metrics.evaluate.evaluate_with_baselines`: ``{"metrics": {
        "structure_faithfulness": {...}}, "structures": {STRUCTURE: {METRIC: {...}}}}``.
    """
    model, *others = evaluator({"": predictions, **baselines}).values()
    overall = {name: {OVERALL: found[0]} for name, found in zip(baselines, others, strict=True)}
    structures = {
        structure: compared(
            model[1][structure],
            {name: found[1][structure] for name, found in zip(baselines, others, strict=True)},
        )
        for structure in evaluator.structures
    }
    return {"metrics": compared({OVERALL: model[0]}, overall), "structures": structures}


def pixel_functions(images: Tensor) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """The metrics that have a value at each pixel (B, 1, H, W), as far as the image size allows."""
    similarity = {"ssim": ssim_map} if min(images.shape[-2:]) >= SSIM_SMALLEST else {}
    return {**similarity, "mse": squared_error}


def squared_error(drawn: Tensor, real: Tensor) -> Tensor:
    """Pixel by pixel, in squared network units."""
    return (drawn - real).square()


def _weighted_fid(real: Tensor, drawn: Tensor, weights: Tensor) -> float:
    return fid(real, drawn, weights, weights)
