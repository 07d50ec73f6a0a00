"""Supervised training of small networks in memory, for comparisons of many trainings."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from ignite.engine import Events
from torch import Tensor, nn
from torch.utils.data import Dataset

from common.data.loaders import InfiniteBatchSampler, SampleIndex, make_loader
from common.rng import make_rng
from common.training.precision import Precision
from common.training.steps import Loss, SupervisedStep
from common.training.trainer import MultiStepTrainer

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Budget:
    """The training budget, equal for all trainings of a comparison.

    Args:
        iterations: batches; the same for large and for small sets.
        batch_size: slices of a batch.
        learning_rate: of AdamW; it falls to 0 along half a cosine.
        weight_decay: of AdamW.
    """

    iterations: int = 200
    batch_size: int = 16
    learning_rate: float = 1.0e-3
    weight_decay: float = 1.0e-4


class Repeated(Dataset[dict[str, Any]]):
    """A dataset of any size as one of ``length`` visits: shuffled passes, one after the other.

    A visit is a `SampleIndex` of item and pass, so every pass draws new augmentations.

    Args:
        dataset: items of all parts, one part after the other.
        parts: number of items of each part. Visits alternate between the parts, so that a batch holds equal
            shares of them (real and synthetic images, say) whatever their sizes.
        length: number of visits.
        seed: of the order.
    """

    def __init__(
        self, dataset: Dataset[dict[str, Any]], parts: Sequence[int], length: int, seed: int
    ) -> None:
        self.dataset, self.length = dataset, length
        starts = np.cumsum([0, *parts[:-1]])
        turns = -(-length // len(parts))
        orders = [
            _passes(size, turns, int(start), seed, ["pass", *([part] if part else [])])
            for part, (start, size) in enumerate(zip(starts, parts, strict=True))
        ]
        self.draws = [draw for turn in zip(*orders, strict=True) for draw in turn]

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, visit: SampleIndex | int) -> dict[str, Any]:
        return self.dataset[self.draws[visit.index if isinstance(visit, SampleIndex) else visit]]


def _passes(size: int, count: int, start: int, seed: int, keys: list[int | str]) -> list[SampleIndex]:
    """Returns the first ``count`` visits of endless shuffled passes over ``size`` items from ``start`` on."""
    orders = [make_rng(seed, *keys, number).permutation(size) for number in range(-(-count // size))]
    return [SampleIndex(start + int(k), number) for number, order in enumerate(orders) for k in order][:count]


def fit(
    network: nn.Module,
    dataset: Any,
    terms: Mapping[str, Loss],
    target: str,
    budget: Budget,
    seed: int,
    device: torch.device | str = "cpu",
    parts: Sequence[int] = (),
) -> nn.Module:
    """Trains the network on the dataset's items and returns it in evaluation mode.

    Args:
        dataset: items with ``image`` and ``target``.
        terms: losses by name, of ``(prediction, target)``.
        seed: of the order; the initial weights are the caller's.
        parts: sizes of the parts of which every batch holds equal shares, see `Repeated`; default one part.
    """
    visits = Repeated(dataset, parts or [len(dataset)], budget.iterations * budget.batch_size, seed)
    stream = InfiniteBatchSampler(len(visits), budget.batch_size, seed, shuffle=False)
    optimizer = torch.optim.AdamW(
        network.parameters(), budget.learning_rate, weight_decay=budget.weight_decay
    )
    trainer = MultiStepTrainer(
        max_epochs=1,
        train_data_loader=make_loader(visits, stream),
        networks={"S": network},
        optimizers={"S": optimizer},
        steps=[SupervisedStep(terms, target=target, network="S", name="S", optimizer="S")],
        precision=Precision(device),
        predicts="S",
    )
    trainer.logger.setLevel(logging.WARNING)  # one line a training is enough
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, budget.iterations)
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: schedule.step())
    trainer.run()
    return network.eval()


@torch.inference_mode()
def predictions(
    network: Callable[[Tensor], Tensor],
    images: Tensor,
    device: torch.device | str = "cpu",
    batch_size: int = 16,
) -> Tensor:
    """Returns the network's output for images (N, 1, H, W): (N, ...) float32 on the CPU."""
    return torch.cat([network(batch.to(device)).float().cpu() for batch in images.split(batch_size)])


def seeded(make: Callable[[], nn.Module], seed: int, name: str) -> nn.Module:
    """Makes a network whose initial weights depend on the seed and the name alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(make_rng(seed, "weights", name).integers(2**31)))
        return make()
