from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from bundles.dcgan_covid.latent_interpolation import ProjectionSettings, objective, project
from common.errors import UserError
from common.inference.sampling import latents

QUICK = ProjectionSettings(starts=2, iterations=150, learning_rate=0.1, prior=0.0)


class Painter(nn.Module):
    """Two values say how much of a ramp and of a disc there is; a class adds brightness."""

    def __init__(self) -> None:
        super().__init__()
        rows, columns = torch.meshgrid(torch.linspace(-1, 1, 16), torch.linspace(-1, 1, 16), indexing="ij")
        disc = ((rows**2 + (columns - 0.3) ** 2) < 0.3).float()
        self.basis = nn.Parameter(torch.stack([rows, disc]))
        self.norm = nn.BatchNorm2d(1)

    def forward(self, latent: Tensor, condition: Tensor | None = None) -> Tensor:
        image = torch.einsum("bl,lhw->bhw", latent, self.basis)[:, None]
        offset = 0 if condition is None else 0.5 * condition[:, None, None, None]
        return self.norm(0.3 * image + offset)


def test_it_finds_the_latent_of_a_generated_image() -> None:
    network, hidden = Painter().train(), torch.tensor([[0.8, -1.3]])
    target = network.eval()(hidden).detach()
    network.train()
    found = project(network, target, latents(0, range(16), 2), settings=QUICK)
    torch.testing.assert_close(found.latent, hidden[0], atol=0.02, rtol=0)
    assert float((found.image - target).abs().mean()) < 0.05 * float((found.drawn - target).abs().mean())
    assert found.condition is None and found.image.shape == target.shape


def test_it_leaves_the_network_as_it_was() -> None:
    network = Painter().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    project(network, torch.zeros(1, 1, 16, 16), latents(0, range(8), 2), settings=QUICK)
    assert network.training and all(weight.requires_grad for weight in network.parameters())
    assert all(weight.grad is None for weight in network.parameters())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_it_finds_the_class_too() -> None:
    network = Painter().eval()
    target = network(torch.tensor([[0.5, 0.5]]), torch.tensor([2.0])).detach()
    classes = torch.arange(30.0) % 3
    found = project(network, target, latents(0, range(30), 2), classes, QUICK)
    assert found.condition is not None and float(found.condition) == 2.0
    torch.testing.assert_close(found.latent, torch.tensor([0.5, 0.5]), atol=0.02, rtol=0)


def test_it_is_the_same_every_time() -> None:
    network, target = Painter(), torch.rand(1, 1, 16, 16)
    first, second = (project(network, target, latents(3, range(16), 2), settings=QUICK) for _ in range(2))
    assert torch.equal(first.latent, second.latent)


def test_the_parts_of_the_objective() -> None:
    target = torch.zeros(1, 1, 16, 16)
    images = torch.cat([target, target + 0.5])
    near, far = torch.tensor([[1.0, -1.0], [1.0, 1.0]]), torch.tensor([[0.0, 0.0], [2.0, 2.0]])
    plain = ProjectionSettings(structure=0.0, prior=0.0)
    torch.testing.assert_close(objective(images, target, near, plain), torch.tensor([0.0, 0.5]))
    prior = ProjectionSettings(structure=0.0, prior=2.0)
    torch.testing.assert_close(objective(images, target, near, prior), torch.tensor([0.0, 0.5]))
    torch.testing.assert_close(objective(images, target, far, prior), torch.tensor([2.0, 18.5]))
    structure = objective(images, target, near, ProjectionSettings(structure=1.0, prior=0.0))
    # Gray 0.5 against 0.75 in [0, 1]: SSIM 2 * 0.5 * 0.75 / (0.25 + 0.5625) = 0.923
    assert structure[0] < 1e-6 and structure[1] == pytest.approx(0.5 + 0.077, abs=1e-3)


def test_settings_that_leave_nothing_to_do_are_refused() -> None:
    with pytest.raises(UserError, match="iterations 0"):
        ProjectionSettings(iterations=0)
    with pytest.raises(UserError, match="prior -1"):
        ProjectionSettings(prior=-1)
