"""The segmenter of a trust report: a small U-Net on labelled slices, trained in memory."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.losses import DiceCELoss
from monai.networks.nets import UNet
from torch import Tensor, nn

from common.errors import UserError
from common.training.in_memory import Budget, fit, predictions, seeded
from common.trust.items import TrainingSlices
from common.trust.sets import ImageSet

NAME = "unet"
LEVELS = 3  # halvings


def structure_names(*sets: ImageSet) -> list[str]:
    """What the label values from 1 on are called: as the sets say, else by their numbers.

    Names beyond the highest value are left out: a model may know more structures than these sets show.

    Raises:
        UserError: the sets' names differ, or a label has a value beyond them.
    """
    given = [list(each.structures) for each in sets if each.structures]
    if any(names != given[0] for names in given):
        raise UserError(f"labels of {', '.join(map(str, given))}: the sets' structures differ")
    highest = max(int(each.labels.max()) for each in sets if each.labels is not None)
    names = given[0] if given else ["structure"] if highest <= 1 else [str(k + 1) for k in range(highest)]
    if highest > len(names):
        raise UserError(f"a label has the value {highest}, but the structures are {', '.join(names)}")
    return names[: max(highest, 1)]


def make_segmenter(classes: int, width: int = 16) -> nn.Module:
    """(B, 1, S, S) in [-1, 1] -> logits (B, classes + 1, S, S), background first; S a multiple of 8."""
    channels = (width, 2 * width, 4 * width, 4 * width)
    return UNet(2, 1, classes + 1, channels, (2,) * LEVELS, num_res_units=1, norm="batch")


def train_segmenter(
    images: Tensor,
    labels: Tensor,
    classes: int,
    budget: Budget,
    seed: int,
    device: torch.device | str = "cpu",
    parts: Sequence[int] = (),
) -> nn.Module:
    """A segmenter trained on slices (N, 1, S, S) with class indices 0..classes (N, 1, S, S).

    Loss: Dice and cross-entropy in equal parts. First weights and order follow from the seed.
    Of ``parts`` (their sizes, in the images' order) each batch holds equal shares.

    Raises:
        UserError: the size does not fit the network.
    """
    side = images.shape[-1]
    if side % 2**LEVELS:
        raise UserError(f"images of {side} pixels: the segmenter takes multiples of {2**LEVELS}")
    network = seeded(lambda: make_segmenter(classes), seed, "segmenter")
    loss = DiceCELoss(softmax=True, to_onehot_y=True, batch=True, include_background=False)
    items = TrainingSlices(images, {"label": labels}, seed)
    return fit(network, items, {"dice_ce": loss}, "label", budget, seed, device, parts)


def segmented(network: nn.Module, images: Tensor, device: torch.device | str = "cpu") -> Tensor:
    """The class indices (N, 1, S, S) uint8 that the segmenter finds."""
    batches = [predictions(network, batch, device).argmax(1, keepdim=True) for batch in images.split(64)]
    return torch.cat(batches).to(torch.uint8)


def overlaps(found: Tensor, true: Tensor, classes: int) -> Tensor:
    """Of each image and class: pixels found and true, found, true.

    Args:
        found, true: class indices (N, 1, S, S).
    Returns:
        (N, K, 3) float64.
    """
    parts = []
    for index in range(1, classes + 1):
        a, b = (labels.flatten(1).round() == index for labels in (found, true))  # (N, S * S)
        parts.append(torch.stack([(a & b).sum(1), a.sum(1), b.sum(1)], dim=1))
    return torch.stack(parts, dim=1).double()


def mean_dice(sums: Tensor) -> float:
    """The mean Dice over the classes that either side has; of sums (K, 3) of `overlaps`."""
    both, found, true = sums.T
    return float((2 * both / (found + true)).nanmean())
