"""The same metrics for validation during training, as ignite metrics that stream over batches.

All take ``(pred, image, label)`` from the engine's output: images (B, 1, H, W) in [-1, 1] and labels
(B, C, H, W), or lists of single ones as MONAI's decollation leaves them. In a configuration::

    output_transform: "$monai.handlers.from_engine(['pred', 'image', 'label'])"

Under several processes each sees its share of the validation set; ``compute`` joins the shares.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import ignite.distributed as idist
import torch
from ignite.metrics import Metric
from torch import Tensor, nn

from common.data.labels import structure_mask
from common.metrics.faithfulness import contrast_parts, faithfulness, mean_faithfulness, region_contrasts
from common.metrics.features import FeatureExtractor
from common.metrics.fid import StreamingMoments, moments_distance

Batch = Sequence[Any]  # (pred, image, label)


def as_given(output: Any) -> Any:
    """The output transform for engines whose output is ``(pred, image, label)`` already."""
    return output


class FrechetDistance(Metric):
    """FID of the predictions against the real images of one pass, in constant memory. Lower is better.

    Args:
        extractor: features; moved to ``device``.
        output_transform: engine output -> (pred, image, label).
        device: where features are computed.
    """

    def __init__(
        self,
        extractor: FeatureExtractor,
        output_transform: Callable[[Any], Any] = as_given,
        device: torch.device | str = "cpu",
    ) -> None:
        self.extractor = extractor.to(device) if isinstance(extractor, nn.Module) else extractor
        super().__init__(output_transform, device=device, skip_unrolling=True)

    def reset(self) -> None:
        """Forgets what was seen."""
        self.real = StreamingMoments(self.extractor.dimension)
        self.fake = StreamingMoments(self.extractor.dimension)

    def update(self, output: Batch) -> None:
        """Adds a batch."""
        pred, image = (batched(item).to(self._device) for item in output[:2])
        self.fake.update(self.extractor(pred).cpu())
        self.real.update(self.extractor(image).cpu())

    def compute(self) -> float:
        """The distance over all processes."""
        return moments_distance(joined(self.real), joined(self.fake))


class LesionFaithfulness(Metric):
    """Lesion faithfulness of one pass (see `common.metrics.faithfulness`). Higher is better, 1 at most.

    A pass without any lesion gives 0: nothing was shown to be drawn.
    """

    def __init__(
        self, output_transform: Callable[[Any], Any] = as_given, device: torch.device | str = "cpu"
    ) -> None:
        super().__init__(output_transform, device=device, skip_unrolling=True)

    def reset(self) -> None:
        """Forgets what was seen."""
        self.sums = torch.zeros(3, dtype=torch.float64)  # of `contrast_parts`

    def update(self, output: Batch) -> None:
        """Adds a batch."""
        pred, image, label = (batched(item).cpu() for item in output)
        self.sums += contrast_parts(*region_contrasts([pred, image], label)).sum(0)

    def compute(self) -> float:
        """The faithfulness over all processes."""
        sums = summed(self.sums)
        return faithfulness(sums) if sums[1] else 0.0


class StructureFaithfulness(Metric):
    """The mean over classes of one pass's faithfulness, see `common.metrics.faithfulness.mean_faithfulness`.

    Higher is better, 1 at most. A pass without any structure gives 0.

    Args:
        classes: labels are (B, 1, H, W) indices 0..classes, 0 for the background.
    """

    def __init__(
        self,
        classes: int,
        output_transform: Callable[[Any], Any] = as_given,
        device: torch.device | str = "cpu",
    ) -> None:
        self.classes = classes
        super().__init__(output_transform, device=device, skip_unrolling=True)

    def reset(self) -> None:
        """Forgets what was seen."""
        self.sums = torch.zeros(self.classes, 3, dtype=torch.float64)  # of `contrast_parts`

    def update(self, output: Batch) -> None:
        """Adds a batch."""
        pred, image, label = (batched(item).cpu() for item in output)
        for index in range(self.classes):
            mask = structure_mask(label, index + 1)
            self.sums[index] += contrast_parts(*region_contrasts([pred, image], mask)).sum(0)

    def compute(self) -> float:
        """The mean over classes, over all processes."""
        sums = summed(self.sums)
        return mean_faithfulness(sums) if sums[:, 1].any() else 0.0


class ImageMean(Metric):
    """The mean over images of a function (pred, image) -> (B,), as `common.metrics.image_quality.ssim`."""

    def __init__(
        self,
        function: Callable[[Tensor, Tensor], Tensor],
        output_transform: Callable[[Any], Any] = as_given,
        device: torch.device | str = "cpu",
    ) -> None:
        self.function = function
        super().__init__(output_transform, device=device, skip_unrolling=True)

    def reset(self) -> None:
        """Forgets what was seen."""
        self.sums = torch.zeros(2, dtype=torch.float64)  # of values and of images

    def update(self, output: Batch) -> None:
        """Adds a batch."""
        pred, image = (batched(item).float() for item in output[:2])
        values = self.function(pred, image).double().cpu()
        self.sums += torch.stack([values.sum(), torch.tensor(float(len(values)), dtype=torch.float64)])

    def compute(self) -> float:
        """The mean over all processes; 0 for an empty pass."""
        total, count = summed(self.sums).tolist()
        return total / count if count else 0.0


def batched(item: Tensor | Sequence[Tensor]) -> Tensor:
    """One tensor (B, C, H, W) from a batch or a list of decollated items; plain, without metadata."""
    tensor = item if isinstance(item, Tensor) else torch.stack(list(item))
    return tensor.detach().as_subclass(Tensor)


def joined(moments: StreamingMoments) -> StreamingMoments:
    """The statistics of all processes together; the same on each."""
    if idist.get_world_size() == 1:
        return moments
    total = StreamingMoments(len(moments.mean))
    for state in _gathered(moments.state_dict()):
        part = StreamingMoments(len(moments.mean))
        part.load_state_dict(state)
        total.merge(part)
    return total


def _gathered(state: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    stacked = {
        name: torch.as_tensor(idist.all_gather(value[None].to(idist.device())))  # (ranks, ...)
        for name, value in state.items()
    }
    return [{name: value[rank] for name, value in stacked.items()} for rank in range(idist.get_world_size())]


def summed(values: Tensor) -> Tensor:
    """The sum of a tensor over all processes, on the CPU; the same on each."""
    if idist.get_world_size() == 1:
        return values
    return torch.as_tensor(idist.all_reduce(values.clone().to(idist.device()))).cpu()
