"""Diffusion models as generators: MONAI's `DiffusionModelUNet`, sampled by DDIM within ``forward``.

A generator draws an image from noise in one call, whatever happens inside. So evaluation, inference, the
trust report and best-model selection use a diffusion model as they use a GAN's generator; only the training
step (`common.training.steps.DiffusionStep`) looks inside.

MONAI's attention blocks need ``einops`` (the extra ``diffusion``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from monai.inferers import DiffusionInferer
from monai.networks.nets.diffusion_model_unet import DiffusionModelUNet
from monai.networks.schedulers import DDIMScheduler
from monai.utils import optional_import
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from common.errors import UserError
from common.networks.blocks import DrawnNoise

PREDICTIONS = ("v_prediction", "epsilon", "sample")
SCHEDULES = ("cosine", "scaled_linear_beta", "linear_beta", "sigmoid_beta")
GROUPS = 32
"""Groups of the UNet's group normalisation: every width is a multiple of it."""


class TrailingDDIMScheduler(DDIMScheduler):
    """DDIM (Song et al. 2021) with steps of equal length that begin at the last timestep.

    With N training timesteps and n sampling steps the timesteps are N - 1, N - 1 - N/n, ..., N/n - 1
    ("trailing", Lin et al. 2024). MONAI's own spacing divides N - 1 by n - 1, while its ``step`` goes back by
    N // n: the image is then noisier than the timestep says, the more so the fewer the steps (at N = 1000
    and n = 10 the final image is left with the noise of timestep 11).
    """

    def set_timesteps(self, num_inference_steps: int, device: str | torch.device | None = None) -> None:
        """Sets the timesteps of sampling.

        Raises:
            UserError: the steps do not divide the training timesteps.
        """
        if num_inference_steps < 1 or self.num_train_timesteps % num_inference_steps:
            raise UserError(
                f"sampling_steps {num_inference_steps} must divide the {self.num_train_timesteps} timesteps"
            )
        self.num_inference_steps = num_inference_steps
        length = self.num_train_timesteps // num_inference_steps
        self.timesteps = torch.arange(self.num_train_timesteps - 1, -1, -length, device=device)


class PatchedUNet(DiffusionModelUNet):
    """MONAI's UNet on patches of pixels: it works at 1/patch of the image's size.

    The patch's pixels become channels and are taken apart again at the end (Hoogeboom et al. 2023, "simple
    diffusion"); half the side is a quarter of the work, for little loss. The output is float32, so that
    sampling in half precision rounds within the network alone.

    Args:
        patch: side of a patch in pixels; 1 for MONAI's UNet as it is.
        in_channels, out_channels: of the image, before and after patches are taken apart.
    """

    def __init__(self, patch: int, in_channels: int, out_channels: int, **arguments: Any) -> None:
        super().__init__(2, in_channels * patch**2, out_channels * patch**2, **arguments)
        self.patch = patch

    def forward(
        self, x: Tensor, timesteps: Tensor, context: Tensor | None = None, *args: Any, **kwargs: Any
    ) -> Tensor:
        """(B, in_channels, S, S) and timesteps (B,) or (1,) -> (B, out_channels, S, S) float32."""
        patches = pixel_unshuffle(x, self.patch)  # (B, in_channels * patch^2, S / patch, S / patch)
        output: Tensor = super().forward(patches, timesteps, context, *args, **kwargs)
        return pixel_shuffle(output, self.patch).float()


class DiffusionGenerator(nn.Module):
    """A UNet with its noise schedule and DDIM sampler: draws images (B, 1, S, S) in [-1, 1] in one call.

    With ``condition_channels`` it is a generator of (mask, noise): the mask is concatenated to the noisy
    image. Without, it is a generator of latents: the S * S values of the noise that sampling starts from.

    Args:
        image_size: S, a multiple of ``patch * 2 ** (len(channels) - 1)``.
        condition_channels: of the mask; 0 for an unconditional model.
        channels: widths of the UNet's levels from fine to coarse, multiples of 32.
        attention: for each level, whether it has self-attention (the bottleneck always has).
        res_blocks: residual blocks a level on the way down; one more on the way up.
        head_channels: channels of an attention head.
        patch: see `PatchedUNet`.
        prediction: what the network predicts: ``v_prediction`` (Salimans and Ho 2022), ``epsilon`` (Ho et al.
            2020) or ``sample``, the image.
        schedule: of the noise: ``cosine`` (Nichol and Dhariwal 2021), ``scaled_linear_beta``,
            ``linear_beta`` or ``sigmoid_beta``.
        timesteps: of training.
        sampling_steps: DDIM's steps, each one pass of the UNet; a divisor of ``timesteps``. The weights do
            not depend on it: another number in the model's .json samples the same model otherwise.
    Attributes:
        latent: values of a latent, S * S.
        classes: 0, there are none.
    Raises:
        UserError: a size, width, schedule or number of steps that does not fit, or einops is missing.

    Example:
        >>> generator = DiffusionGenerator(32, channels=[32, 32], attention=[False, False], sampling_steps=2)
        >>> generator(torch.zeros(3, generator.latent)).shape
        torch.Size([3, 1, 32, 32])
    """

    def __init__(
        self,
        image_size: int = 64,
        condition_channels: int = 0,
        channels: Sequence[int] = (64, 128, 192),
        attention: Sequence[bool] = (False, False, True),
        res_blocks: int = 1,
        head_channels: int = 32,
        patch: int = 1,
        prediction: str = "v_prediction",
        schedule: str = "cosine",
        timesteps: int = 1000,
        sampling_steps: int = 25,
    ) -> None:
        super().__init__()
        check_settings(image_size, channels, attention, head_channels, patch, prediction, schedule)
        self.image_size, self.sampling_steps = image_size, sampling_steps
        self.condition_channels, self.latent, self.classes = condition_channels, image_size**2, 0
        self.noise = DrawnNoise(1) if condition_channels else None
        self.unet = PatchedUNet(
            patch,
            in_channels=1 + condition_channels,
            out_channels=1,
            num_res_blocks=res_blocks,
            channels=tuple(channels),
            attention_levels=tuple(attention),
            norm_num_groups=GROUPS,
            num_head_channels=head_channels,
        )
        self.scheduler = TrailingDDIMScheduler(timesteps, schedule, prediction_type=prediction)
        self.scheduler.set_timesteps(sampling_steps)

    def forward(self, inputs: Tensor, noise: Tensor | None = None) -> Tensor:
        """Draws images (B, 1, S, S) in [-1, 1], without gradients.

        Args:
            inputs: masks (B, condition_channels, S, S) in {0, 1}, or latents (B, S * S) from N(0, I).
            noise: N(0, 1), (B, 1, S, S), with a mask; by default it depends on the mask in evaluation mode
                (see `DrawnNoise`) and is drawn in training mode.
        """
        if self.noise is None:
            start, condition = inputs.reshape(-1, 1, self.image_size, self.image_size), None
        else:
            start = self.noise(inputs[:, :0], inputs, noise)  # (B, 0 + 1, S, S)
            condition = self.encoded(inputs)
        images = DiffusionInferer(self.scheduler).sample(
            start.float(), self.unet, conditioning=condition, mode=_mode(condition), verbose=False
        )
        assert isinstance(images, Tensor)  # a pair where intermediate images are asked for
        return images

    def encoded(self, mask: Tensor) -> Tensor:
        """Maps a mask in {0, 1} to the UNet's input in {-1, 1}."""
        return mask.float() * 2 - 1

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compiles the UNet; the loop around it stays."""
        self.unet.compile(*args, **kwargs)

    def predict(
        self, image: Tensor, noise: Tensor, timesteps: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One training pass: the UNet on ``image`` with noise of the given timesteps.

        Args:
            image, noise: (B, 1, S, S); the noise is N(0, 1).
            timesteps: (B,), whole numbers below the scheduler's.
            mask: (B, condition_channels, S, S) in {0, 1}; None for unconditional models.
        Returns:
            the UNet's prediction, what it should have been, and the image that follows from the prediction:
            (B, 1, S, S) each.
        """
        scheduler = self.scheduler
        condition = None if mask is None else self.encoded(mask)
        prediction: Tensor = DiffusionInferer(scheduler)(
            image, self.unet, noise, timesteps, condition, _mode(condition)
        )
        noisy = scheduler.add_noise(image, noise, timesteps)
        kept = scheduler.alphas_cumprod[timesteps][:, None, None, None]  # (B, 1, 1, 1), the image's share
        if scheduler.prediction_type == "v_prediction":
            target = scheduler.get_velocity(image, noise, timesteps)
            return prediction, target, kept.sqrt() * noisy - (1 - kept).sqrt() * prediction
        if scheduler.prediction_type == "epsilon":
            estimate = (noisy - (1 - kept).sqrt() * prediction) / kept.sqrt()
            return prediction, noise, estimate.clamp(-1, 1)  # at the last timesteps a division by almost 0
        return prediction, image, prediction


def _mode(condition: Tensor | None) -> str:
    """How MONAI's inferer takes the condition; its default for none at all."""
    return "crossattn" if condition is None else "concat"


def check_settings(
    image_size: int,
    channels: Sequence[int],
    attention: Sequence[bool],
    head_channels: int,
    patch: int,
    prediction: str,
    schedule: str,
) -> None:
    """Raises on settings that would fail in MONAI's networks later, or with a traceback.

    Raises:
        UserError: names the setting and what fits.
    """
    if not optional_import("einops")[1]:
        raise UserError('diffusion models need einops: pip install "einops>=0.8"')
    if prediction not in PREDICTIONS:
        raise UserError(f"prediction '{prediction}': choose from {', '.join(PREDICTIONS)}")
    if schedule not in SCHEDULES:
        raise UserError(f"schedule '{schedule}': choose from {', '.join(SCHEDULES)}")
    if not channels or len(channels) != len(attention):
        raise UserError(
            f"channels {list(channels)} and attention {list(attention)}: give one of each a level"
        )
    if any(width < GROUPS or width % GROUPS for width in channels):
        raise UserError(f"channels {list(channels)}: multiples of {GROUPS} are needed")
    if any(width % head_channels for width in channels):
        raise UserError(f"head_channels {head_channels} must divide the channels {list(channels)}")
    multiple = patch * 2 ** (len(channels) - 1)
    if image_size < 1 or image_size % multiple:
        raise UserError(
            f"image_size {image_size} does not fit the diffusion model; take a multiple of {multiple}"
        )
