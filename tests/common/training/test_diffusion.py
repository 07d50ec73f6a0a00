"""The step of diffusion training: timesteps, weights, and that it learns."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from common.errors import UserError
from common.networks.diffusion import DiffusionGenerator
from common.training.diffusion import DiffusionStep, min_snr_weights, spread_timesteps
from common.training.steps import Context

pytest.importorskip("einops", reason='MONAI\'s attention needs it: pip install ".[diffusion]"')


def tiny(condition_channels: int = 1) -> DiffusionGenerator:
    torch.manual_seed(0)
    return DiffusionGenerator(16, condition_channels, [32, 32], [False, False], patch=2, sampling_steps=2)


def test_timesteps_are_evenly_apart_and_all_occur() -> None:
    torch.manual_seed(1)
    device = torch.device("cpu")
    times = spread_timesteps(4, 1000, device).sort().values
    gaps = torch.diff(torch.cat([times, times[:1] + 1000]))
    assert gaps.sum() == 1000 and (gaps - 250).abs().max() <= 1
    many = torch.cat([spread_timesteps(8, 10, device) for _ in range(200)])
    assert many.bincount(minlength=10).float().div(1600).sub(0.1).abs().max() < 0.02


def test_weights_bound_the_signal_to_noise_ratio() -> None:
    kept = torch.tensor([0.9, 0.5])  # ratios of 9 and 1
    for prediction, weights in (("epsilon", [5 / 9, 1]), ("v_prediction", [0.5, 0.5]), ("sample", [5, 1])):
        assert min_snr_weights(kept, prediction, 5.0).tolist() == pytest.approx(weights, rel=1e-5)


def test_a_fresh_network_predicts_nothing_and_learns() -> None:
    network = tiny()
    image = torch.zeros(8, 1, 16, 16)
    image[:4] = 0.8
    context = Context({"G": network})
    context.use({"image": image, "label": (image > 0).float()})
    step, optimizer = DiffusionStep(), torch.optim.Adam(network.unet.parameters(), 3e-3)
    network.train()
    first = last = 0.0
    for number in range(30):
        loss = step.total(step.losses(context))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        first, last = (float(loss.detach()) if number == 0 else first), float(loss.detach())
    assert 0.5 < first < 1.2  # the mean square of the velocity: the network's output is 0
    assert last < 0.5 * first
    assert context.last_outputs["G"].shape == (8, 1, 16, 16)


def test_other_networks_are_refused() -> None:
    step = DiffusionStep()
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), 0.1)
    with pytest.raises(UserError, match="Linear is no diffusion model"):
        step.check({"G": nn.Linear(1, 1)}, optimizer)
    with pytest.raises(UserError, match="condition_channels 0 does not fit"):
        step.check({"G": tiny(0)}, optimizer)
    step.check({"G": tiny(1)}, optimizer)
