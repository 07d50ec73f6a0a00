from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import pytest
import torch
from monai.engines import SupervisedEvaluator
from monai.handlers import from_engine
from torch import Tensor, nn
from torch.utils.data import DataLoader

from common.metrics.faithfulness import contrast_parts, faithfulness, lesion_contrast
from common.metrics.features import RandomVGG, extract
from common.metrics.fid import fid
from common.metrics.ignite_metrics import (
    FrechetDistance,
    ImageMean,
    LesionFaithfulness,
    StructureFaithfulness,
)
from common.metrics.image_quality import mae, ssim


def samples(count: int = 7, size: int = 24) -> list[dict[str, Tensor]]:
    numbers = torch.Generator().manual_seed(6)
    found = []
    for index in range(count):
        mask = torch.zeros(1, size, size)
        mask[0, 8 : 12 + index % 3, 9:15] = 1
        image = -0.7 + 0.1 * torch.randn(1, size, size, generator=numbers) + mask * (0.5 + 0.05 * index)
        found.append({"image": mask, "label": image})  # MONAI's names: what goes in, what should come out
    return found


class Painter(nn.Module):
    """A generator that draws every lesion alike."""

    def forward(self, mask: Tensor) -> Tensor:
        return -0.7 + 0.4 * mask


def stacked(items: list[dict[str, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
    label = torch.stack([item["image"] for item in items])
    return Painter()(label), torch.stack([item["label"] for item in items]), label


@pytest.mark.parametrize("decollate", [True, False])
def test_metrics_of_a_monai_evaluator_equal_those_of_the_whole_set(decollate: bool) -> None:
    extractor, transform = RandomVGG(), from_engine(["pred", "label", "image"])
    items = samples()
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(items, batch_size=3),
        network=Painter(),
        decollate=decollate,
        key_val_metric={"fid_randvgg": FrechetDistance(extractor, transform)},
        additional_metrics={
            "lesion_faithfulness": LesionFaithfulness(transform),
            "ssim": ImageMean(ssim, transform),
        },
    )
    for _ in range(2):  # the second run forgets the first
        evaluator.run()
    pred, image, label = stacked(items)
    expected = {
        "fid_randvgg": fid(extract(extractor, image), extract(extractor, pred)),
        "lesion_faithfulness": faithfulness(
            contrast_parts(lesion_contrast(pred, label), lesion_contrast(image, label)).sum(0)
        ),
        "ssim": float(ssim(pred, image).mean()),
    }
    found: dict[str, Any] = evaluator.state.metrics
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-4), name
    assert expected["fid_randvgg"] > 1 and 0.5 < expected["lesion_faithfulness"] < 1


def test_batches_of_lists_and_of_tensors_are_the_same() -> None:
    pred, image, label = stacked(samples())
    whole, listed = LesionFaithfulness(), LesionFaithfulness()
    whole.update((pred, image, label))
    listed.update((list(pred[:2]), list(image[:2]), list(label[:2])))
    listed.update((list(pred[2:]), list(image[2:]), list(label[2:])))
    assert whole.compute() == pytest.approx(listed.compute())


def test_a_pass_without_lesions_shows_nothing() -> None:
    pred, image, label = stacked(samples())
    metric = LesionFaithfulness()
    metric.update((pred, image, label * 0))
    assert metric.compute() == 0
    assert ImageMean(ssim).compute() == 0


def class_maps() -> tuple[Tensor, Tensor]:
    """Two slices 32 x 32 on -0.8: class 1 at 0.0 in both, class 2 at -0.4 in the second, class 3 nowhere."""
    label = torch.zeros(2, 1, 32, 32)
    label[:, 0, 4:8, 4:10] = 1
    label[1, 0, 20:26, 18:24] = 2
    return label, -0.8 + 0.8 * (label == 1) + 0.4 * (label == 2)


def test_classes_are_averaged_each_with_its_own_contrast() -> None:
    label, image = class_maps()
    half_of_two = torch.where(label == 2, -0.6, image)  # class 1 as it is, class 2 with half its contrast
    metric = StructureFaithfulness(3)
    metric.update((half_of_two, image, label))
    assert metric.compute() == pytest.approx((1 + 0.5) / 2)
    metric.reset()
    for index in (1, 0):  # the slice with class 2 first, as if streamed
        metric.update(
            (list(half_of_two[index : index + 1]), image[index : index + 1], label[index : index + 1])
        )
    assert metric.compute() == pytest.approx(0.75)


def test_a_class_far_off_counts_as_nothing_drawn() -> None:
    label, image = class_maps()
    inverted = torch.where(label == 2, -2.0, image)  # three times the contrast, downwards: 1 - 4
    metric = StructureFaithfulness(2)
    metric.update((inverted, image, label))
    assert metric.compute() == pytest.approx(0.5)


def test_one_class_is_a_lesion() -> None:
    pred, image, label = stacked(samples())
    one, lesion = StructureFaithfulness(1), LesionFaithfulness()
    for metric in (one, lesion):
        metric.update((pred, image, label))
    assert one.compute() == lesion.compute() > 0.5


def test_slivers_and_passes_without_structures_show_nothing() -> None:
    label, image = class_maps()
    sliver = torch.zeros(1, 1, 128, 128)
    sliver[0, 0, 60:63, 60:65] = 2  # 15 pixels of 16 384: below a thousandth
    metric = StructureFaithfulness(2)
    metric.update((image, image, label * 0))
    assert metric.compute() == 0
    metric.update((sliver, sliver, sliver))
    assert metric.compute() == 0


def test_nan_predictions_give_nan() -> None:
    pred, image, label = stacked(samples())
    metrics = [FrechetDistance(RandomVGG()), LesionFaithfulness(), StructureFaithfulness(1), ImageMean(ssim)]
    for metric in metrics:
        metric.update((pred * torch.nan, image, label))
        assert math.isnan(metric.compute())


class Corners:
    name = "corners"
    dimension = 3

    def __call__(self, images: Tensor) -> Tensor:
        return torch.stack([images[:, 0, 0, 0], images[:, 0, 0, -1], images.mean((1, 2, 3))], dim=1)


def batches() -> list[tuple[Tensor, Tensor, Tensor]]:
    numbers = torch.Generator().manual_seed(1)
    found = []
    for count in (3, 5, 2):  # uneven on purpose
        label = torch.zeros(count, 1, 20, 20)
        label[:, :, 8:12, 8:12] = 1
        image = torch.rand(count, 1, 20, 20, generator=numbers) * 0.2 - 0.8 + 0.5 * label
        label[-1] *= 2  # of class 2, and drawn with another contrast
        found.append((image * (0.7 - 0.2 * (label == 2)), image, label))
    return found


def measured(shares: list[tuple[Tensor, Tensor, Tensor]]) -> list[float]:
    metrics = [FrechetDistance(Corners()), LesionFaithfulness(), StructureFaithfulness(2), ImageMean(mae)]
    for metric in metrics:
        for batch in shares:
            metric.update(batch)
    return [metric.compute() for metric in metrics]


def measure_rank(rank: int, folder: str) -> None:
    torch.save(torch.tensor(measured(batches()[rank::2])), Path(folder) / f"{rank}.pt")


@pytest.mark.slow
def test_two_processes_report_the_whole_set(tmp_path: Path) -> None:
    with idist.Parallel(backend="gloo", nproc_per_node=2) as parallel:
        parallel.run(measure_rank, str(tmp_path))
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    alone = measured(batches())
    assert first.tolist() == pytest.approx(alone, rel=1e-5) and torch.equal(first, second)
    real = torch.cat([Corners()(image) for _, image, _ in batches()])
    fake = torch.cat([Corners()(pred) for pred, _, _ in batches()])
    assert alone[0] == pytest.approx(fid(real, fake), rel=1e-6)
