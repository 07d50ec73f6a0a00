"""Adapters for MONAI's evaluators: ``prepare_batch``, output transforms, an inferer with mixed precision."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.inferers import Inferer
from torch import Tensor, nn

from common.data.replay import slice_noise
from common.inference.sampling import latents
from common.networks.blocks import noise_channels
from common.training.precision import Precision


def mask_to_image(
    batch: dict[str, Any],
    device: torch.device | str | None = None,
    non_blocking: bool = False,
    **_options: Any,
) -> tuple[Tensor, Tensor | None]:
    """A ``prepare_batch``: label (B, C, H, W) as input, image (B, 1, H, W) in [-1, 1] or None as target.

    Example:
        >>> condition, target = mask_to_image({"label": torch.zeros(2, 1, 8, 8)})
        >>> condition.shape, target
        (torch.Size([2, 1, 8, 8]), None)
    """
    image = batch.get("image")
    target = None if image is None else image.to(device, non_blocking=non_blocking)
    return batch["label"].to(device, non_blocking=non_blocking), target


class ConditionToImage:
    """`mask_to_image` for generators that also take noise, which is drawn from the slice's file name.

    The noise depends on the name of a slice's file and, in a volume, on its position in mm, see
    `common.data.replay`: it is the same in every run, order and batch size, and coherent from slice to
    slice. Batches without these entries and networks without noise get none.

    Args:
        network: the generator, whose number of noise channels is used.
        seed: seed of the noise: another one gives other images of the same conditions.
        prepare: makes (inputs, targets) of a batch.
    """

    def __init__(
        self, network: nn.Module, seed: int = 0, prepare: Callable[..., tuple[Any, Any]] = mask_to_image
    ) -> None:
        self.channels, self.seed, self.prepare = noise_channels(network), seed, prepare

    def __call__(
        self,
        batch: dict[str, Any],
        device: torch.device | str | None = None,
        non_blocking: bool = False,
        **options: Any,
    ) -> tuple[Any, ...]:
        """Returns (condition, target) and, if there is noise, further arguments: ``(noise,)`` and ``{}``."""
        condition, target = self.prepare(batch, device, non_blocking, **options)
        if not self.channels or "noise_key" not in batch:
            return condition, target
        coordinates = zip(batch["noise_key"].tolist(), batch["noise_mm"].tolist(), strict=True)
        drawn = [
            slice_noise(self.seed, key, mm, self.channels, condition.shape[-1]) for key, mm in coordinates
        ]
        noise = torch.from_numpy(np.stack(drawn)).to(device, non_blocking=non_blocking)
        return condition, target, (noise,), {}


class LatentToImage:
    """A ``prepare_batch`` for generators that draw from noise: noise (B, size) in, real images as target.

    The noise depends on the batch's ``sample`` numbers, see `common.inference.sampling.latents`: it is the
    same in every pass, so that two validations differ by the network only. The real images are not a paired
    truth: metrics may compare the sets, never image by image.

    Args:
        size: number of values of a latent.
        seed: seed of the noise.
        classes: also pass on the batch's ``class``.

    Example:
        >>> noise, target = LatentToImage(5)({"sample": [0, 1], "image": torch.zeros(2, 1, 8, 8)})
        >>> noise.shape
        torch.Size([2, 5])
    """

    def __init__(self, size: int, seed: int = 0, classes: bool = False) -> None:
        self.size, self.seed, self.classes = size, seed, classes

    def __call__(
        self,
        batch: dict[str, Any],
        device: torch.device | str | None = None,
        non_blocking: bool = False,
        **_options: Any,
    ) -> tuple[Any, ...]:
        noise = latents(self.seed, torch.as_tensor(batch["sample"]).tolist(), self.size).to(device)
        image = batch.get("image")
        target = None if image is None else image.to(device, non_blocking=non_blocking)
        if not self.classes:
            return noise, target
        return noise, target, (batch["class"].to(device, non_blocking=non_blocking),), {}


def prediction_target_condition(
    output: Mapping[str, Any] | Sequence[Mapping[str, Any]],
) -> tuple[Tensor, ...]:
    """An ``output_transform`` for evaluators with `mask_to_image`, for batched and decollated outputs.

    MONAI's evaluators call the network's input "image" and its target "label".

    Returns:
        Prediction (B, 1, H, W), real image (B, 1, H, W), condition (B, C, H, W).
    """
    keys = ("pred", "label", "image")
    if isinstance(output, Mapping):
        return tuple(output[key] for key in keys)
    return tuple(torch.stack([item[key] for item in output]) for key in keys)  # (B, C, H, W) each


def condition_as_prediction(
    output: Mapping[str, Any] | Sequence[Mapping[str, Any]],
) -> tuple[Tensor, ...]:
    """As `prediction_target_condition`, with the condition in the prediction's place.

    The baseline for models whose condition is an image.
    """
    _, target, condition = prediction_target_condition(output)
    return condition, target, condition


class PrecisionInferer(Inferer):
    """Runs the network in mixed precision and inference mode, on CPUs too.

    MONAI's evaluators have mixed precision on GPUs only.

    Args:
        precision: the precision that the network was prepared for.
    """

    def __init__(self, precision: Precision) -> None:
        super().__init__()
        self.precision = precision

    @torch.inference_mode()
    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        """Returns the network's output in float32."""
        with self.precision.autocast():
            output: Tensor = network(inputs, *args, **kwargs)
        return output.float()
