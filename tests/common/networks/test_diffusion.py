"""Diffusion models as generators: DDIM of perfect predictors gives known images."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from monai.networks.schedulers import DDIMScheduler
from torch import Tensor, nn

from common.errors import UserError
from common.networks.blocks import noise_channels
from common.networks.diffusion import PREDICTIONS, DiffusionGenerator, TrailingDDIMScheduler

pytest.importorskip("einops", reason='MONAI\'s attention needs it: pip install ".[diffusion]"')

TINY: dict[str, Any] = {
    "image_size": 16,
    "channels": [32, 32],
    "attention": [False, True],
    "patch": 2,
    "sampling_steps": 4,
}


def tiny(**more: Any) -> DiffusionGenerator:
    torch.manual_seed(0)
    return DiffusionGenerator(**{**TINY, **more}).eval()


class Predictor(nn.Module):
    """Predicts what E[image | noisy] of images N(mean, deviation^2) implies; deviation 0 is a known image."""

    def __init__(self, scheduler: DDIMScheduler, mean: Tensor | float, deviation: float = 0.0) -> None:
        super().__init__()
        self.scheduler, self.mean, self.variance = scheduler, mean, deviation**2
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor, timesteps: Tensor, context: Tensor | None = None) -> Tensor:
        self.seen.append(x)
        noisy, kept = x[:, :1], self.scheduler.alphas_cumprod[timesteps.long()].reshape(-1, 1, 1, 1)
        gain = self.variance * kept.sqrt() / (self.variance * kept + 1 - kept)
        image = self.mean + gain * (noisy - kept.sqrt() * self.mean)
        noise = (noisy - kept.sqrt() * image) / (1 - kept).sqrt()
        kind = self.scheduler.prediction_type
        if kind == "v_prediction":
            return kept.sqrt() * noise - (1 - kept).sqrt() * image
        return noise if kind == "epsilon" else image


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_ddim_of_a_perfect_predictor_gives_the_image(prediction: str) -> None:
    generator = tiny(prediction=prediction, schedule="scaled_linear_beta", condition_channels=1)
    image = torch.linspace(-0.9, 0.7, 256).reshape(1, 1, 16, 16)
    generator.unet = Predictor(generator.scheduler, image)  # type: ignore[assignment]
    mask = torch.zeros(2, 1, 16, 16)
    mask[0, 0, 3:7, 2:5] = 1
    drawn = generator(mask, torch.randn(2, 1, 16, 16))
    torch.testing.assert_close(drawn, image.expand(2, -1, -1, -1), atol=1e-4, rtol=0)
    assert len(generator.unet.seen) == 4
    assert torch.equal(generator.unet.seen[2][:, 1:], mask * 2 - 1)  # the mask is beside every noisy image


def test_gaussian_images_come_out_with_their_deviation() -> None:
    """DDIM carries z of N(0, 1) to 0.2 + 0.1 z of N(0.2, 0.1^2), to the first order in the steps' length."""
    errors = []
    for steps in (10, 100, 1000):
        generator = tiny(sampling_steps=steps)
        generator.unet = Predictor(generator.scheduler, 0.2, 0.1)  # type: ignore[assignment]
        latent = torch.randn(4, generator.latent)
        drawn = generator(latent).flatten(1)
        errors.append(float((drawn - 0.2 - 0.1 * latent).abs().max()))
    assert errors[0] > 5 * errors[1] > 25 * errors[2] and errors[2] < 0.005


@pytest.mark.parametrize("steps", [1, 4, 25, 1000])
def test_every_step_ends_where_the_next_begins(steps: int) -> None:
    scheduler = TrailingDDIMScheduler(1000)
    scheduler.set_timesteps(steps)
    back = 1000 // steps  # what DDIMScheduler.step goes back
    times = scheduler.timesteps.tolist()
    assert times[0] == 999 and len(times) == steps
    assert [time - back for time in times] == [*times[1:], -1]


def test_a_training_pass_of_a_perfect_predictor_has_no_error() -> None:
    for prediction in PREDICTIONS:
        generator = tiny(prediction=prediction, schedule="scaled_linear_beta")
        image = torch.rand(3, 1, 16, 16) * 2 - 1
        generator.unet = Predictor(generator.scheduler, image)  # type: ignore[assignment]
        given, wanted, implied = generator.predict(
            image, torch.randn_like(image), torch.tensor([0, 400, 999])
        )
        torch.testing.assert_close(given, wanted, atol=2e-3, rtol=0)  # a little noise is divided by little
        torch.testing.assert_close(implied, image, atol=1e-3, rtol=0)


def test_the_velocity_is_that_of_salimans_and_ho() -> None:
    generator = tiny()
    kept = float(generator.scheduler.alphas_cumprod[300])
    image, noise = torch.full((1, 1, 16, 16), 0.5), torch.full((1, 1, 16, 16), -2.0)
    _, wanted, _ = generator.predict(image, noise, torch.tensor([300]))
    assert float(wanted[0, 0, 0, 0]) == pytest.approx(kept**0.5 * -2.0 - (1 - kept) ** 0.5 * 0.5, abs=1e-6)


def test_masks_and_noise_decide_the_image() -> None:
    generator = tiny(condition_channels=1)
    nn.init.normal_(generator.unet.out[2].conv.weight, std=0.1)  # MONAI begins with 0
    assert noise_channels(generator) == 1
    mask = torch.zeros(2, 1, 16, 16)
    mask[1, 0, 4:9, 4:6] = 1
    one, again = generator(mask), generator(mask)
    assert one.shape == (2, 1, 16, 16) and torch.equal(one, again)  # noise by the mask
    assert one.abs().max() <= 1 and not torch.equal(one[0], one[1])
    noise = torch.randn(2, 1, 16, 16)
    assert torch.equal(generator(mask, noise), generator(mask, noise))
    assert not torch.equal(generator(mask, noise), one)
    swapped = generator(mask.flip(0), noise)
    assert not torch.equal(swapped, generator(mask, noise))


def test_the_state_is_flat_and_does_not_know_the_steps() -> None:
    one, other = tiny(condition_channels=1), tiny(condition_channels=1, sampling_steps=8)
    assert {name.split(".")[0] for name in one.state_dict()} == {"noise", "unet"}
    other.load_state_dict(one.state_dict())
    assert one.scheduler.timesteps.tolist() == [999, 749, 499, 249]
    assert other.scheduler.timesteps.tolist()[:2] == [999, 874]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sampling_steps": 3}, "sampling_steps 3"),
        ({"image_size": 18}, "image_size 18 .* multiple of 4"),
        ({"channels": [32, 40]}, "multiples of 32"),
        ({"attention": [True]}, "one of each a level"),
        ({"head_channels": 12}, "head_channels 12"),
        ({"prediction": "noise"}, "prediction 'noise'"),
        ({"schedule": "linear"}, "schedule 'linear'"),
    ],
)
def test_settings_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        tiny(**changes)
