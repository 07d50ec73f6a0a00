"""What MONAI's evaluators feed a generator: a mask or noise as input, the real CT as target."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.inferers import Inferer
from torch import Tensor, nn

from common.data.slice_noise import slice_noise
from common.inference.sampling import latents
from common.networks.blocks import noise_channels
from common.training.precision import Precision


def mask_to_image(
    batch: dict[str, Any],
    device: torch.device | str | None = None,
    non_blocking: bool = False,
    **_options: Any,
) -> tuple[Tensor, Tensor | None]:
    """A ``prepare_batch``: label (B, C, H, W) in, image (B, 1, H, W) in [-1, 1] as target (None without)."""
    image = batch.get("image")
    target = None if image is None else image.to(device, non_blocking=non_blocking)
    return batch["label"].to(device, non_blocking=non_blocking), target


class ConditionToImage:
    """`mask_to_image` for generators that take noise beside the condition, which follows from file names.

    The noise belongs to the name of a slice's file, and in a volume to its place in mm, see
    `common.data.slice_noise`: it is the same in every run, order and batch size, and coherent from slice to
    slice. Batches without these entries, and networks without noise, are passed on without any.

    Args:
        network: the generator, to know how many channels of noise it takes.
        seed: of the noise: another one gives other images of the same conditions.
        prepare: what brings the batch to (inputs, targets).
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
        """(condition, target), and where there is noise ``(noise,)`` and ``{}``: further arguments."""
        condition, target = self.prepare(batch, device, non_blocking, **options)
        if not self.channels or "noise_key" not in batch:
            return condition, target
        places = zip(batch["noise_key"].tolist(), batch["noise_mm"].tolist(), strict=True)
        drawn = [slice_noise(self.seed, key, mm, self.channels, condition.shape[-1]) for key, mm in places]
        noise = torch.from_numpy(np.stack(drawn)).to(device, non_blocking=non_blocking)
        return condition, target, (noise,), {}


class LatentToImage:
    """A ``prepare_batch`` for unconditional nets: noise (B, size) in, the batch's real images as target.

    The noise belongs to the batch's ``sample`` numbers, see `common.inference.sampling.latents`: it is the
    same in every pass, so that two validations differ by the network alone. The real images are company, not
    truth: metrics may compare the sets, never image by image.

    Args:
        size: of a latent.
        seed: of the noise.
        classes: feed the batch's ``class`` too.
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
    """An ``output_transform`` for evaluators fed by `common.inference.prepare_batch.mask_to_image`.

    Their output names the network's input "image" and its target "label".

    Returns:
        pred (B, 1, H, W), real image (B, 1, H, W), condition (B, C, H, W): batched, decollated or not.
    """
    keys = ("pred", "label", "image")
    if isinstance(output, Mapping):
        return tuple(output[key] for key in keys)
    return tuple(torch.stack([item[key] for item in output]) for key in keys)  # (B, C, H, W) each


def condition_as_prediction(
    output: Mapping[str, Any] | Sequence[Mapping[str, Any]],
) -> tuple[Tensor, ...]:
    """As `prediction_target_condition`, with the condition in the prediction's place.

    For conditions that are images: what a metric of the model's has to be held against.
    """
    _, target, condition = prediction_target_condition(output)
    return condition, target, condition


class PrecisionInferer(Inferer):
    """Applies the network in the arithmetic of ``precision``, without any record of it for gradients.

    MONAI's evaluators have mixed precision on GPUs only.

    Args:
        precision: has prepared the network; its layout and type are used.
    """

    def __init__(self, precision: Precision) -> None:
        super().__init__()
        self.precision = precision

    @torch.inference_mode()
    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        """The network's output in float32."""
        with self.precision.autocast():
            output: Tensor = network(inputs, *args, **kwargs)
        return output.float()
