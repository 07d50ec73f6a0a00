from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from bundles.dcgan_covid.networks import DcganGenerator
from bundles.dcgan_covid.veegan import (
    JointDiscriminator,
    Reconstructor,
    VeeganDiscriminatorStep,
    VeeganGeneratorStep,
    latent_distance,
    veegan_loss,
)
from common.networks.discriminators import DiscriminatorOutput
from common.training.precision import Precision
from common.training.steps import Context

# A batch of two: images (2, 1, 1, 1), noise (2, 2).
REAL = torch.tensor([1.0, -2.0]).reshape(2, 1, 1, 1)
NOISE = torch.tensor([[1.0, 0.0], [-1.0, 2.0]])
GENERATED = [0.5 * 1 - 1, 0.5 * (-1 + 2) - 1]  # G(z) = (z1 + z2) / 2 - 1: -0.5, -0.5
RECONSTRUCTED = [(2.0, -1.0), (-4.0, 2.0)]  # F(x) = (2 x, -x)
OF_GENERATED = [(-1.0, 0.5), (-1.0, 0.5)]


class G(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(0.5))

    def forward(self, latent: Tensor) -> Tensor:
        return (self.slope * latent.sum(1) - 1).reshape(-1, 1, 1, 1)


class F(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.tensor([2.0, -1.0]))

    def forward(self, image: Tensor) -> Tensor:
        return image.flatten(1) * self.weights


class D(nn.Module):
    """logit = x + z1 - 2 z2, so the paper's D(z, x) is its negative."""

    def forward(self, image: Tensor, condition: Tensor) -> DiscriminatorOutput:
        return DiscriminatorOutput([(image.flatten() + condition[:, 0] - 2 * condition[:, 1])[:, None]], [[]])


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def ratio(x: float, z: tuple[float, float]) -> float:
    """The paper's D(z, x), the log ratio of generated to real."""
    return -(x + z[0] - 2 * z[1])


def discriminator_step() -> VeeganDiscriminatorStep:
    return VeeganDiscriminatorStep(veegan_loss(), inputs=("latent",), condition="latent")


@pytest.fixture
def context() -> Context:
    context = Context({"G": G(), "F": F(), "D": D()})
    context.use({"image": REAL, "latent": NOISE})
    return context


def noise() -> list[tuple[float, float]]:
    return [(float(a), float(b)) for a, b in NOISE]


def test_the_discriminators_loss_is_the_papers_on_a_batch_by_hand(context: Context) -> None:
    """O_LR = -E[log s(D(z, x_g))] - E[log(1 - s(D(z_g, x)))]."""
    generated = sum(-math.log(sigmoid(ratio(x, z))) for x, z in zip(GENERATED, noise(), strict=True)) / 2
    real = (
        sum(
            -math.log(1 - sigmoid(ratio(x, z)))
            for x, z in zip(REAL.flatten().tolist(), RECONSTRUCTED, strict=True)
        )
        / 2
    )
    losses = discriminator_step().losses(context)
    assert set(losses) == {"D_adversarial"}
    assert float(losses["D_adversarial"]) == pytest.approx(generated + real, rel=1e-6)


def test_the_generators_loss_is_the_papers_on_a_batch_by_hand(context: Context) -> None:
    """O-hat = 1/N sum D(z, x_g) + 1/N sum |z - F(x_g)|^2."""
    adversarial = sum(ratio(x, z) for x, z in zip(GENERATED, noise(), strict=True)) / 2
    distance = (
        sum(
            (z[0] - back[0]) ** 2 + (z[1] - back[1]) ** 2
            for z, back in zip(noise(), OF_GENERATED, strict=True)
        )
        / 2
    )
    assert (adversarial, distance) == (-0.5 * (0.5 + -5.5), 0.5 * (4 + 0.25 + 0 + 2.25))
    step = VeeganGeneratorStep(veegan_loss())
    losses = step.losses(context)
    assert {name: float(value) for name, value in losses.items()} == pytest.approx(
        {"G_adversarial": adversarial, "G_latent": distance}
    )
    assert float(step.total(losses)) == pytest.approx(adversarial + distance)
    assert float(
        VeeganGeneratorStep(veegan_loss(), weights={"G_latent": 0.1}).total(losses)
    ) == pytest.approx(adversarial + 0.1 * distance)


def test_each_network_learns_from_its_own_terms(context: Context) -> None:
    """Algorithm 1: the reconstructor from the distance alone, the discriminator's step from neither of
    them.
    """
    step = VeeganGeneratorStep(veegan_loss())
    assert step.trains == ("G", "F") and step.freezes == ("D",)
    losses = step.losses(context)
    losses["G_adversarial"].backward(retain_graph=True)
    assert context.networks["F"].weights.grad is None and context.networks["G"].slope.grad is not None
    losses["G_latent"].backward()
    assert bool((context.networks["F"].weights.grad != 0).all())
    other = Context({"G": G(), "F": F(), "D": D()})
    other.use({"image": REAL, "latent": NOISE})
    assert discriminator_step().losses(other)["D_adversarial"].requires_grad is False


def test_distance_is_summed_over_values_and_averaged_over_the_batch() -> None:
    assert float(latent_distance(torch.zeros(2, 3), torch.tensor([[1.0, 2, 2], [0, 0, 3]]))) == 9
    assert float(veegan_loss().generator_loss(torch.tensor([[3.0], [-1.0]]))) == -1


@pytest.mark.parametrize("spectral", [False, True])
def test_networks(spectral: bool) -> None:
    torch.manual_seed(0)
    image, latent = torch.rand(3, 1, 32, 32), torch.randn(3, 7)
    assert Reconstructor(32, latent=7, width=4)(image).shape == (3, 7)
    judge = JointDiscriminator(32, latent=7, width=4, joint=8, spectral=spectral).eval()
    with torch.no_grad():
        logits = judge(image, latent).logits[0]
        assert logits.shape == (3, 1)
        assert not torch.equal(logits, judge(image, -latent).logits[0])
        assert not torch.equal(logits, judge(-image, latent).logits[0])


@pytest.mark.parametrize("amp", [False, "bf16"])
def test_a_penalty_goes_with_half_precision(amp: bool | str) -> None:
    """F gives the condition in half precision; the penalty is computed in float32."""
    torch.manual_seed(0)
    precision = Precision("cpu", amp=amp)
    networks = {
        "G": DcganGenerator(16, latent=2, width=2),
        "F": Reconstructor(16, latent=2, width=2),
        "D": JointDiscriminator(16, latent=2, width=2, norm="layer", joint=4),
    }
    context = Context(networks)
    context.use({"image": torch.rand(3, 1, 16, 16), "latent": torch.randn(3, 2)})
    step = VeeganDiscriminatorStep(veegan_loss(), inputs=("latent",), condition="latent", penalty=10.0)
    with precision.autocast():
        losses = step.losses(context)
    assert losses["D_penalty"].dtype is torch.float32
    step.total(losses).backward()
    assert all(float(p.grad.abs().sum()) > 0 for p in networks["D"].noise.parameters() if p.ndim > 1)
