"""Metrics for validation during training, as ignite metrics that stream over batches.

All take ``(pred, image, label)`` from the engine's output: images (B, 1, H, W) in [-1, 1] and labels
(B, C, H, W), or lists of single items as MONAI's decollation leaves them. In a configuration::

    output_transform: "$monai.handlers.from_engine(['pred', 'image', 'label'])"

Under several processes each process sees its share of the validation set; ``compute`` joins the shares.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import ignite.distributed as idist
import torch
from ignite.metrics import Metric
from torch import Tensor, nn

from common.data.labels import structure_mask
from common.metrics.faithfulness import contrast_parts, faithfulness, mean_faithfulness, region_contrasts
from common.metrics.features import FeatureExtractor
from common.metrics.fid import StreamingMoments, frechet_distance


def as_given(output: Any) -> Any:
    """Returns the output: for engines whose output is ``(pred, image, label)`` already."""
    return output


class FrechetDistance(Metric):
    """FID of the predictions against the real images of one pass, in constant memory. Lower is better.

    Args:
        extractor: computes features; moved to ``device``.
        output_transform: engine output -> (pred, image, label).
        device: where features are computed.

    Example:
        >>> from common.metrics.features import RandomVGG
        >>> images = torch.rand(4, 1, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
        >>> metric = FrechetDistance(RandomVGG())
        >>> metric.update((images, images, torch.zeros_like(images)))  # pred, image, label
        >>> round(metric.compute(), 4)
        0.0
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
        """Forgets all batches."""
        self.real = StreamingMoments(self.extractor.dimension)
        self.fake = StreamingMoments(self.extractor.dimension)

    def update(self, output: Sequence[Any]) -> None:
        """Adds a batch."""
        pred, image = (stack_items(item).to(self._device) for item in output[:2])
        self.fake.update(self.extractor(pred).cpu())
        self.real.update(self.extractor(image).cpu())

    def compute(self) -> float:
        """Computes the distance over all processes."""
        return frechet_distance(_join_processes(self.real), _join_processes(self.fake))


class SumMetric(Metric):
    """An ignite metric that is a function of sums over images, which processes add up.

    Subclasses set ``shape``, the shape of the sums, and define ``batch_sums`` and ``value``.

    Args:
        output_transform: engine output -> what ``batch_sums`` takes; see the subclass.
        device: as of `ignite.metrics.Metric`.
    """

    shape: tuple[int, ...]

    def __init__(
        self, output_transform: Callable[[Any], Any] = as_given, device: torch.device | str = "cpu"
    ) -> None:
        super().__init__(output_transform, device=device, skip_unrolling=True)

    def reset(self) -> None:
        """Forgets all batches."""
        self.sums = torch.zeros(self.shape, dtype=torch.float64)

    def update(self, output: Sequence[Any]) -> None:
        """Adds a batch."""
        self.sums += self.batch_sums(*(stack_items(item) for item in output)).cpu()

    def compute(self) -> float:
        """Computes the metric over all processes."""
        return self.value(sum_over_processes(self.sums))

    @abstractmethod
    def batch_sums(self, *batch: Tensor) -> Tensor:
        """What a batch (B, C, H, W) each adds to the sums."""

    @abstractmethod
    def value(self, sums: Tensor) -> float:
        """Computes the metric from the sums (float64, on the CPU)."""


class LesionFaithfulness(SumMetric):
    """Lesion faithfulness of one pass, see `common.metrics.faithfulness`. Higher is better, 1 at most.

    A pass without any lesion gives 0: no lesion was shown to be drawn.

    Example:
        >>> metric, label = LesionFaithfulness(), torch.zeros(1, 1, 32, 32)
        >>> label[..., 10:20, 10:20] = 1
        >>> metric.update((0.25 * label, 0.5 * label, label))  # half of the contrast
        >>> metric.compute()
        0.5
    """

    shape = (3,)

    def batch_sums(self, *batch: Tensor) -> Tensor:
        """Computes the sums of `contrast_parts`."""
        pred, image, label = (item.cpu() for item in batch)
        return contrast_parts(*region_contrasts([pred, image], label)).sum(0)

    def value(self, sums: Tensor) -> float:
        """Computes the faithfulness."""
        return faithfulness(sums) if sums[1] else 0.0


class StructureFaithfulness(SumMetric):
    """The mean faithfulness over classes, see `common.metrics.faithfulness.mean_faithfulness`.

    Higher is better, 1 at most. A pass without any structure gives 0.

    Args:
        classes: labels are (B, 1, H, W) indices 0..classes, 0 for the background.

    Example: as `LesionFaithfulness`, with ``StructureFaithfulness(classes=7)`` and a label map.
    """

    def __init__(
        self,
        classes: int,
        output_transform: Callable[[Any], Any] = as_given,
        device: torch.device | str = "cpu",
    ) -> None:
        self.shape = (classes, 3)
        super().__init__(output_transform, device)

    def batch_sums(self, *batch: Tensor) -> Tensor:
        """Computes the sums of `contrast_parts` by class."""
        pred, image, label = (item.cpu() for item in batch)
        masks = (structure_mask(label, index + 1) for index in range(self.shape[0]))
        return torch.stack([contrast_parts(*region_contrasts([pred, image], mask)).sum(0) for mask in masks])

    def value(self, sums: Tensor) -> float:
        """Computes the mean over classes."""
        return mean_faithfulness(sums) if sums[:, 1].any() else 0.0


class ImageMean(SumMetric):
    """The mean over images of a function (pred, image) -> (B,); 0 for an empty pass.

    Args:
        function: for example `common.metrics.image_quality.ssim`.
        output_transform: engine output -> (pred, image) or (pred, image, label).

    Example:
        >>> metric = ImageMean(lambda pred, image: (pred - image).abs().mean((1, 2, 3)))
        >>> metric.update((torch.zeros(2, 1, 4, 4), torch.ones(2, 1, 4, 4)))
        >>> metric.compute()
        1.0
    """

    shape = (2,)  # values, images

    def __init__(
        self,
        function: Callable[[Tensor, Tensor], Tensor],
        output_transform: Callable[[Any], Any] = as_given,
        device: torch.device | str = "cpu",
    ) -> None:
        self.function = function
        super().__init__(output_transform, device)

    def batch_sums(self, *batch: Tensor) -> Tensor:
        """Computes the sum of the values and their number."""
        values = self.function(batch[0].float(), batch[1].float()).double()
        return torch.stack([values.sum(), values.new_tensor(len(values))])

    def value(self, sums: Tensor) -> float:
        """Computes the mean."""
        total, count = sums.tolist()
        return total / count if count else 0.0


def stack_items(item: Tensor | Sequence[Tensor]) -> Tensor:
    """Makes one plain tensor (B, C, H, W) of a batch or a list of decollated items."""
    tensor = item if isinstance(item, Tensor) else torch.stack(list(item))
    return tensor.detach().as_subclass(Tensor)


def sum_over_processes(values: Tensor) -> Tensor:
    """Computes the sum of a tensor over all processes, on the CPU; the same in each process."""
    if idist.get_world_size() == 1:
        return values
    return torch.as_tensor(idist.all_reduce(values.clone().to(idist.device()))).cpu()


def _join_processes(moments: StreamingMoments) -> StreamingMoments:
    """Joins the statistics of all processes; the same in each process."""
    if idist.get_world_size() == 1:
        return moments
    gathered = {
        name: torch.as_tensor(idist.all_gather(value[None].to(idist.device())))  # (ranks, ...)
        for name, value in moments.state_dict().items()
    }
    total = StreamingMoments(len(moments.mean))
    for rank in range(idist.get_world_size()):
        part = StreamingMoments(len(moments.mean))
        part.load_state_dict({name: value[rank] for name, value in gathered.items()})
        total.merge(part)
    return total
