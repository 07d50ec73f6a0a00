"""Every discriminator of the bundles with a gradient penalty, in float32 and in bfloat16."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from bundles.dcgan_covid.networks import DcganDiscriminator, DcganGenerator
from bundles.dcgan_covid.veegan import (
    JointDiscriminator,
    Reconstructor,
    VeeganDiscriminatorStep,
    VeeganGeneratorStep,
    veegan_loss,
)
from bundles.lung_two_stage.generation.networks import (
    BigGanDiscriminator,
    BigGanGenerator,
    CapsuleDiscriminator,
    ConvolutionalDiscriminator,
    ConvolutionalGenerator,
    DenseDiscriminator,
    DenseGenerator,
)
from bundles.patchgan_cardiac.annotation import PairDiscriminator
from bundles.patchgan_cardiac.networks import ContrastGenerator, HeartGenerator, PatchGridDiscriminator
from bundles.pix2pix_covid.networks import UnetGenerator
from common.losses.adversarial import adversarial_loss
from common.networks.discriminators import AugmentedDiscriminator, ConditionalPatchDiscriminator
from common.networks.generators import SpadeGenerator
from common.networks.skip_excitation import ResidualDiscriminator, SkipExcitationGenerator
from common.training.precision import Precision
from common.training.steps import Context, DiscriminatorStep, GeneratorStep, Step

SIDE, LATENT, CLASSES = 32, 5, 2


class Game(NamedTuple):
    """A recipe's networks, the batch's entries for them, and how many channels its images have."""

    generator: Callable[[], nn.Module]
    discriminator: Callable[[], nn.Module]
    inputs: tuple[str, ...] = ("label",)
    condition: str | None = "label"
    channels: int = 1


HEART = {"classes": CLASSES, "levels": 4, "width": 4}
NOISE = ("latent",)
BOTH = ("latent", "class")
SMALL = {"image_size": SIDE, "width": 2, "classes": CLASSES}
GAMES = {
    "pix2pix": Game(
        lambda: UnetGenerator(levels=4, ngf=2),
        lambda: ConditionalPatchDiscriminator(channels=2, num_layers_d=1, scales=2, norm="instance"),
    ),
    "patchgan": Game(
        lambda: HeartGenerator(encoding="onehot", **HEART),
        lambda: PatchGridDiscriminator(CLASSES, "onehot", width=2, norm="layer"),
    ),
    "spade": Game(
        lambda: SpadeGenerator(SIDE, (4, 8), CLASSES, "onehot"),
        lambda: PatchGridDiscriminator(CLASSES, "onehot", width=2, norm="none"),
    ),
    "annotation": Game(
        lambda: HeartGenerator(out_channels=2 + CLASSES, **HEART),
        lambda: PairDiscriminator(CLASSES, width=2, norm="instance"),
        channels=2 + CLASSES,
    ),
    "contrast": Game(
        lambda: ContrastGenerator(**HEART),
        lambda: PatchGridDiscriminator(CLASSES, "image", width=2, norm="group"),
    ),
    "dcgan": Game(
        lambda: DcganGenerator(SIDE, LATENT, width=2),
        lambda: AugmentedDiscriminator(DcganDiscriminator(SIDE, width=2, norm="layer", deviation=True)),
        NOISE,
        None,
    ),
    "skip_excitation": Game(
        lambda: SkipExcitationGenerator(SIDE, LATENT, width=4),
        lambda: AugmentedDiscriminator(ResidualDiscriminator(SIDE, width=2, patches=8)),
        NOISE,
        None,
    ),
    "dcgan_conditional": Game(
        lambda: DcganGenerator(SIDE, LATENT, width=2, classes=CLASSES),
        lambda: DcganDiscriminator(SIDE, width=2, norm="none", spectral=True, classes=CLASSES),
        BOTH,
        "class",
    ),
    "veegan": Game(
        lambda: DcganGenerator(SIDE, LATENT, width=2),
        lambda: JointDiscriminator(SIDE, LATENT, width=2, norm="layer", joint=4),
        NOISE,
        "latent",
    ),
    "capsules": Game(
        lambda: ConvolutionalGenerator(latent=LATENT, **SMALL),
        lambda: CapsuleDiscriminator(maps=1, **SMALL),
        BOTH,
        "class",
        2,
    ),
    "capsule_lengths": Game(
        lambda: ConvolutionalGenerator(latent=LATENT, **SMALL),
        lambda: CapsuleDiscriminator(maps=1, score="length", norm="layer", **SMALL),
        BOTH,
        "class",
        2,
    ),
    "convolutions": Game(
        lambda: ConvolutionalGenerator(latent=LATENT, **SMALL),
        lambda: ConvolutionalDiscriminator(norm="instance", **SMALL),
        BOTH,
        "class",
        2,
    ),
    "dense": Game(
        lambda: DenseGenerator(latent=LATENT, **SMALL), lambda: DenseDiscriminator(**SMALL), BOTH, "class", 2
    ),
    "biggan": Game(
        lambda: BigGanGenerator(latent=LATENT, **SMALL),
        lambda: BigGanDiscriminator(**SMALL),
        BOTH,
        "class",
        2,
    ),
}


def steps_of(name: str, game: Game) -> list[Step]:
    asked = {"inputs": game.inputs, "condition": game.condition}
    if name == "veegan":
        loss = veegan_loss()
        return [
            VeeganDiscriminatorStep(loss, penalty=10.0, **asked),
            VeeganGeneratorStep(loss, inputs=game.inputs),
        ]
    loss = adversarial_loss("margin" if name == "capsule_lengths" else "wasserstein")
    return [DiscriminatorStep(loss, penalty=10.0, **asked), GeneratorStep(loss, **asked)]


def batch_of(game: Game) -> dict[str, Tensor]:
    return {
        "image": torch.rand(3, game.channels, SIDE, SIDE) * 2 - 1,
        "label": torch.randint(0, CLASSES + 1, (3, 1, SIDE, SIDE)).float(),
        "latent": torch.randn(3, LATENT),
        "class": torch.tensor([0, 1, 1]),
    }


@pytest.mark.parametrize("amp", [False, "bf16"])
@pytest.mark.parametrize("name", GAMES)
def test_a_penalty_teaches_every_discriminator(name: str, amp: bool | str) -> None:
    torch.manual_seed(0)
    game, precision = GAMES[name], Precision("cpu", amp=amp)
    networks = {"G": game.generator(), "D": game.discriminator()}
    if name == "veegan":
        networks["F"] = Reconstructor(SIDE, LATENT, width=2)
    context = Context(networks)
    context.use(batch_of(game))
    for step in steps_of(name, game):
        step.check(networks, torch.optim.SGD(networks["D"].parameters()))
        with precision.autocast():
            losses = step.losses(context)
            total = step.total(losses)
        precision.backward(total)
        assert all(bool(value.isfinite()) for value in losses.values())
        for trained in step.trains:
            gradients = [p.grad for p in networks[trained].parameters() if p.grad is not None]
            assert gradients and all(bool(gradient.isfinite().all()) for gradient in gradients)
        networks["D"].zero_grad()
