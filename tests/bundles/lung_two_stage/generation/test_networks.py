"""Shapes, ranges and sizes of all methods' networks; what the capsule discriminator's scores are."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from bundles.lung_two_stage.generation.networks import (
    BigGanDiscriminator,
    BigGanGenerator,
    CapsuleDiscriminator,
    ConvolutionalDiscriminator,
    ConvolutionalGenerator,
    DenseDiscriminator,
    DenseGenerator,
    keeping_size,
)
from common.errors import UserError
from common.losses.adversarial import gradient_norm, gradient_penalty

GENERATORS = (ConvolutionalGenerator, DenseGenerator, BigGanGenerator)
DISCRIMINATORS = (CapsuleDiscriminator, ConvolutionalDiscriminator, DenseDiscriminator, BigGanDiscriminator)
CLASSES = torch.tensor([0, 2, 1])


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("size", [16, 32])
@pytest.mark.parametrize("kind", GENERATORS)
def test_generators_give_images(kind: type[nn.Module], size: int, classes: int) -> None:
    network = kind(image_size=size, latent=5, width=4, channels=2, classes=classes)
    images = network(torch.randn(3, 5), CLASSES) if classes else network(torch.randn(3, 5))
    assert images.shape == (3, 2, size, size)
    assert images.abs().max() <= 1 and images.flatten(1).std(0).max() > 0
    assert network.latent == 5 and network.classes == classes


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("size", [16, 32])
@pytest.mark.parametrize("kind", DISCRIMINATORS)
def test_discriminators_give_a_score_each(kind: type[nn.Module], size: int, classes: int) -> None:
    network = kind(image_size=size, width=4, channels=1, classes=classes)
    critique = network(torch.randn(3, 1, size, size), CLASSES if classes else None)
    assert [scores.shape for scores in critique.logits] == [(3, 1)]
    assert critique.features[0]


@pytest.mark.parametrize("kind", [*GENERATORS[::2], *DISCRIMINATORS[:2], BigGanDiscriminator])
def test_a_size_that_no_doubling_gives_is_refused(kind: type[nn.Module]) -> None:
    with pytest.raises(UserError, match="image_size 24"):
        kind(image_size=24)


def test_the_class_changes_what_is_drawn() -> None:
    for kind in GENERATORS:
        torch.manual_seed(0)
        network = kind(image_size=16, latent=5, width=4, classes=3).eval()
        noise = torch.randn(1, 5).expand(3, -1)
        images = network(noise, CLASSES)
        assert (images[0] - images[1]).abs().max() > 1e-4, kind


def test_lengths_of_the_classes_capsules_are_scores_from_0_to_1() -> None:
    torch.manual_seed(0)
    network = CapsuleDiscriminator(16, width=4, channels=1, classes=3, score="length")
    images = torch.randn(1, 1, 16, 16).expand(3, -1, -1, -1)
    scores = network(images, CLASSES).logits[0]
    assert (scores > 0).all() and (scores < 1).all() and len(scores.unique()) == 3
    assert torch.equal(network(images).logits[0][0], network(images, torch.zeros(3)).logits[0][0])


def test_capsules_see_something_at_the_beginning() -> None:
    torch.manual_seed(0)
    network = CapsuleDiscriminator(32, width=8)
    capsules = network.primary(network.hidden(torch.rand(4, 2, 32, 32) * 2 - 1))
    assert capsules.shape == (4, 16 * 16, 8)
    assert 0.3 < capsules.norm(dim=2).mean() < 0.9


def test_a_gradient_penalty_reaches_every_weight_of_the_critic() -> None:
    torch.manual_seed(0)
    network = CapsuleDiscriminator(16, width=4, channels=1, maps=2)
    real, fake = torch.randn(2, 3, 1, 16, 16)
    gradient_penalty(lambda images: network(images).logits[0], real, fake).backward()
    weights = {name: value.grad for name, value in network.named_parameters() if name.endswith("weight")}
    assert all(grad is not None and grad.abs().max() > 0 for grad in weights.values())


@pytest.mark.parametrize(("gradients", "true"), [("all", True), ("last", False)])
def test_the_penalised_slope_is_the_critics(gradients: str, true: bool) -> None:
    """Against differences, pixel by pixel: with the image the routing changes too."""
    torch.manual_seed(0)
    network = CapsuleDiscriminator(16, width=4, channels=1, maps=2, gradients=gradients).double()
    image = torch.randn(1, 1, 16, 16, dtype=torch.float64, requires_grad=True)
    with torch.no_grad():
        network.routing.weight *= 2  # longer votes: the routing has more to say
        steps = 1e-5 * torch.eye(256, dtype=torch.float64).reshape(256, 1, 16, 16)
        up, down = (network(image + way * steps).logits[0] for way in (1, -1))
        slope = float(((up - down) / 2e-5).norm())
    penalised = float(gradient_norm(lambda x: network(x).logits[0], image))
    assert (abs(penalised / slope - 1) < 1e-5) is true and slope > 0
    assert true or abs(penalised / slope - 1) > 0.02


@pytest.mark.parametrize("kind", DISCRIMINATORS)
def test_the_class_does_not_drown_the_image_at_the_beginning(kind: type[nn.Module]) -> None:
    image, classed = [], []
    for seed in range(8):
        torch.manual_seed(seed)
        network, images = kind(image_size=32, classes=3), torch.rand(8, 2, 32, 32) * 2 - 1
        with torch.no_grad():
            image.append(network(images).logits[0] if kind is not DenseDiscriminator else torch.ones(8, 1))
            classed.append(network(images, torch.arange(8) % 3).logits[0] - image[-1])
    if kind is not DenseDiscriminator:  # it reads the class beside the pixels
        assert 0.2 < float(torch.cat(classed).std() / torch.cat(image).std()) < 2


def test_unknown_names_are_refused() -> None:
    with pytest.raises(UserError, match="score 'size'"):
        CapsuleDiscriminator(score="size")
    with pytest.raises(UserError, match="norm 'spectral'"):
        ConvolutionalDiscriminator(norm="spectral")


def test_a_state_dict_says_its_sizes() -> None:
    state = ConvolutionalGenerator(64, latent=7, width=4, classes=3).state_dict()
    result = ConvolutionalGenerator().sizes(state)
    assert result == {"latent size": 7, "image size": 64, "number of classes": 3}


def test_grain_follows_from_the_latent() -> None:
    """Equal latents, whatever is drawn beside them, give equal images; without strength there is none."""
    network = ConvolutionalGenerator(32, 8, 4, grain=True).eval()
    noise = torch.randn(3, 8)
    plain = network(noise)
    for strength in network.grain.parameters():
        torch.nn.init.constant_(strength, 0.5)
    grained = network(noise)
    assert not torch.allclose(plain, grained, atol=1e-3)
    torch.testing.assert_close(network(noise[[2, 0]]), grained[[2, 0]])
    torch.testing.assert_close(torch.jit.script(network)(noise), grained)
    network.train()
    assert not torch.allclose(network(noise), network(noise), atol=1e-3)
    assert network.sizes(network.state_dict()) == {"latent size": 8, "image size": 32, "number of classes": 0}


def test_weights_that_keep_the_size_of_features() -> None:
    torch.manual_seed(0)
    critic = keeping_size(ConvolutionalDiscriminator(64, 16, 1, norm="none"))
    deepest = critic(torch.randn(16, 1, 64, 64)).features[0][-1]
    assert 0.5 < float(deepest.square().mean().sqrt()) < 2
