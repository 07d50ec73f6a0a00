"""The training step of diffusion models: denoising at random timesteps."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from common.errors import UserError
from common.networks.diffusion import DiffusionGenerator
from common.training.steps import Context, Step


class DiffusionStep(Step):
    """Trains a `common.networks.diffusion.DiffusionGenerator` to denoise (Ho et al. 2020, algorithm 1).

    Timesteps and noise are drawn from torch's generator of the device, whose state travels in the resume
    file. The timesteps of a batch are spread evenly over the schedule with one random offset (Kingma et al.
    2021, "Variational diffusion models", appendix I): the loss is the same on average and steadier.

    Args:
        condition: entry of the batch that the model is conditioned on; None for none.
        real: entry with the images (B, 1, S, S) in [-1, 1].
        min_snr: bound of the signal-to-noise ratio in the weights of timesteps (Hang et al. 2023: 5); 0 for
            equal weights of what is predicted.
    """

    def __init__(
        self,
        condition: str | None = "label",
        real: str = "image",
        min_snr: float = 0.0,
        network: str = "G",
        name: str = "G",
        optimizer: str = "G",
        weights: Mapping[str, float] | None = None,
        repeat: int = 1,
    ) -> None:
        super().__init__(name, optimizer, (network,), (), weights, repeat)
        self.condition, self.real, self.network = condition, real, network
        self.min_snr = min_snr

    def check(self, networks: Mapping[str, nn.Module], optimizer: Optimizer) -> None:
        """Raises `UserError` if the network is no diffusion model or has another kind of condition."""
        network = networks[self.network]
        if not isinstance(network, DiffusionGenerator):
            raise UserError(f"network_def: {type(network).__name__} is no diffusion model")
        if bool(network.condition_channels) != (self.condition is not None):
            raise UserError(
                f"network_def#condition_channels {network.condition_channels} does not fit the step's "
                f"condition, {self.condition}"
            )

    def losses(self, context: Context) -> dict[str, Tensor]:
        """Returns ``NAME_denoising``, the mean squared error; ``state.output`` gets the estimated images."""
        network, image = context.networks[self.network], context.batch[self.real]
        assert isinstance(network, DiffusionGenerator)  # see `check`
        mask = None if self.condition is None else context.batch[self.condition]
        timesteps = spread_timesteps(len(image), network.scheduler.num_train_timesteps, image.device)
        noise = torch.randn_like(image)
        prediction, target, estimate = network.predict(image, noise, timesteps, mask)
        context.last_outputs[self.network] = estimate.detach()
        errors = (prediction - target).square().mean((1, 2, 3))  # (B,)
        if self.min_snr:
            kept = network.scheduler.alphas_cumprod[timesteps]  # (B,)
            errors = errors * min_snr_weights(kept, network.scheduler.prediction_type, self.min_snr)
        return {f"{self.name}_denoising": errors.mean()}


def spread_timesteps(count: int, timesteps: int, device: torch.device) -> Tensor:
    """Draws ``count`` evenly spaced timesteps (count,) below ``timesteps`` with one random offset."""
    places = torch.arange(count, device=device) / count + torch.rand(1, device=device)
    return ((places % 1) * timesteps).long().clamp(max=timesteps - 1)


def min_snr_weights(kept: Tensor, prediction: str, bound: float) -> Tensor:
    """Returns weights of the prediction's squared error that equal min(SNR, bound) for the image's.

    Args:
        kept: the image's share of the variance (B,); SNR is kept / (1 - kept).
        prediction: what is predicted.
        bound: of the SNR.

    Example:
        >>> min_snr_weights(torch.tensor([0.5, 0.9]), "epsilon", bound=5.0)  # SNR 1 and 9
        tensor([1.0000, 0.5556])
    """
    ratio = kept / (1 - kept).clamp(min=1e-8)
    bounded = ratio.clamp(max=bound)
    divisor = {"v_prediction": ratio + 1, "epsilon": ratio, "sample": torch.ones_like(ratio)}[prediction]
    return bounded / divisor.clamp(min=1e-8)
