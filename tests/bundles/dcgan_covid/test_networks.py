from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from bundles.dcgan_covid import networks as dense
from bundles.dcgan_covid.networks import (
    DcganDiscriminator,
    DcganGenerator,
    DenseImage,
    PacedLinear,
    batch_deviation,
    bilinear_weights,
    separable_factors,
)
from common.errors import UserError
from common.networks.state import init_weights

NOISE = torch.randn(3, 100, generator=torch.Generator().manual_seed(0))


def size(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def convolutions(latent: int = 100) -> int:
    """4 x 4 transposed convolutions and 3 x 3 convolutions at width 64, norms scale and shift."""
    up = [(latent, 512), (512, 256), (256, 128), (128, 64)]
    norms = 2 * (sum(target for _, target in up) + 64)
    return sum(16 * source * target for source, target in up) + 9 * 64 * 64 + norms + 9 * 64 + 1


@pytest.mark.parametrize(
    ("image_size", "dense", "count"),
    [
        (64, 1024 * 64**2 + 64**2, 7_809_601),
        (128, 1024 * 128**2 + 128**2, 20_404_801),
        (256, 1024 * 384 + 384 * 256**2 + 256**2, 29_235_777),
    ],
)
def test_the_stated_sizes(image_size: int, dense: int, count: int) -> None:
    with torch.device("meta"):  # weights without memory
        network = DcganGenerator(image_size, start="random")
    assert size(network.dense) == dense
    assert size(network) == convolutions() + dense == count <= 30_000_000
    assert f"{count:,}".replace(",", " ") in str(DcganGenerator.__doc__)


def test_the_map_before_the_dense_layer_has_1024_values() -> None:
    for image_size in (64, 128, 256):
        with torch.device("meta"):
            network = DcganGenerator(image_size, width=2, start="random")
        seen: list[torch.Size] = []
        network.dense.register_forward_pre_hook(lambda _, given, seen=seen: seen.append(given[0].shape))
        assert network(NOISE.to("meta")).shape == (3, 1, image_size, image_size)
        assert seen == [(3, 1, 32, 32)]


@pytest.mark.parametrize("upsample", ["transposed", "resize"])
@pytest.mark.parametrize("classes", [0, 3])
def test_shape_range_and_script(upsample: str, classes: int) -> None:
    torch.manual_seed(0)
    network = DcganGenerator(32, width=4, classes=classes, upsample=upsample).eval()
    given = (NOISE, torch.tensor([0, 1, 2])) if classes else (NOISE,)
    with torch.no_grad():
        image = network(*given)
        torch.testing.assert_close(torch.jit.script(network)(*given), image)
    assert image.shape == (3, 1, 32, 32) and image.dtype == torch.float32
    assert -1 < float(image.min()) < float(image.max()) < 1


def test_a_latent_gives_one_image_and_another_another() -> None:
    torch.manual_seed(0)
    network = init_weights(DcganGenerator(32, width=4)).eval()
    with torch.no_grad():
        image = network(NOISE)
        torch.testing.assert_close(network(NOISE[:1]), image[:1])
    assert not torch.equal(image[0], image[1])


def test_classes_may_be_walked_with_the_noise_fixed() -> None:
    torch.manual_seed(0)
    network = DcganGenerator(32, width=4, classes=3).eval()
    noise = NOISE[:1].expand(5, -1)
    with torch.no_grad():
        walk = network(noise, torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0]))
        ends = network(noise[:2], torch.tensor([0, 1]))
    torch.testing.assert_close(walk[[0, 4]], ends)
    steps = (walk[1:] - walk[:-1]).flatten(1).norm(dim=1)
    assert float(steps.min()) > 0 and float(steps.max() / steps.min()) < 3
    torch.testing.assert_close(
        network.embedding(torch.tensor([1.25])),
        0.75 * network.embedding.table[1:2] + 0.25 * network.embedding.table[2:],
    )


@pytest.mark.parametrize(("image_size", "levels"), [(64, 4), (128, 5), (256, 6)])
def test_the_discriminator_halves_down_to_one_output(image_size: int, levels: int) -> None:
    critique = DcganDiscriminator(image_size, width=2)(torch.rand(2, 1, image_size, image_size))
    assert [tuple(logits.shape) for logits in critique.logits] == [(2, 1, 1, 1)]
    sides = [feature.shape[2] for feature in critique.features[0]]
    assert sides == [image_size // 2 ** (level + 1) for level in range(levels)] and sides[-1] == 4


def test_the_discriminators_stated_size() -> None:
    layers = [(1, 64), (64, 128), (128, 256), (256, 512), (512, 512), (512, 1)]
    weights = sum(16 * source * target for source, target in layers)
    expected = weights + 64 + 1 + 2 * (128 + 256 + 512 + 512)
    with torch.device("meta"):
        assert size(DcganDiscriminator()) == expected == 6_958_913
    assert "6 958 913" in str(DcganDiscriminator.__doc__)


@pytest.mark.parametrize(
    ("norm", "ties"), [("batch", True), ("instance", False), ("layer", False), ("none", False)]
)
def test_only_batch_norm_ties_the_samples_of_a_batch(norm: str, ties: bool) -> None:
    torch.manual_seed(0)
    network = DcganDiscriminator(32, width=4, norm=norm).train()
    image = torch.rand(4, 1, 32, 32)
    with torch.no_grad():
        together, alone = network(image).logits[0][:2], network(image[:2]).logits[0]
    assert torch.allclose(together, alone, atol=1e-5) is not ties


def test_a_batch_all_alike_is_seen_by_its_deviation() -> None:
    features = torch.stack([torch.zeros(3, 4, 4), torch.full((3, 4, 4), 2.0)])
    torch.testing.assert_close(batch_deviation(features), torch.ones(2, 1, 4, 4))
    assert float(batch_deviation(features[:1].expand(5, -1, -1, -1)).max()) < 1e-3
    torch.manual_seed(0)
    network = DcganDiscriminator(32, width=4, norm="none", deviation=True)
    varied = torch.rand(4, 1, 32, 32)
    alike = varied[:1].expand(4, -1, -1, -1)
    assert not torch.allclose(network(varied).logits[0][0], network(alike).logits[0][0], atol=1e-6)


def test_spectral_norm_bounds_every_layer() -> None:
    torch.manual_seed(0)
    network = DcganDiscriminator(32, width=4, norm="none", spectral=True)
    for _ in range(30):  # power iterations
        network(torch.rand(1, 1, 32, 32))
    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert len(layers) == 4
    for layer in layers:
        largest = torch.linalg.matrix_norm(layer.weight.flatten(1), ord=2)
        assert float(largest.detach()) == pytest.approx(1, abs=0.02)


def test_the_class_is_judged() -> None:
    torch.manual_seed(0)
    network = DcganDiscriminator(32, width=4, norm="none", classes=2)
    image = torch.rand(2, 1, 32, 32)
    logits = [network(image, torch.full((2,), number)).logits[0] for number in (0, 1)]
    fit = network.hidden[2](network.hidden[1](network.hidden[0](image))).mean((2, 3))
    expected = fit @ (network.projection.table[1] - network.projection.table[0])
    torch.testing.assert_close((logits[1] - logits[0]).flatten(), expected)


@pytest.mark.parametrize("image_size", [8, 40, 100])
def test_other_sizes_are_refused(image_size: int) -> None:
    for network in (DcganGenerator, DcganDiscriminator):
        with pytest.raises(UserError, match=f"image_size {image_size} does not fit the networks"):
            network(image_size)


def test_other_norms_are_refused() -> None:
    with pytest.raises(
        UserError, match="norm 'batched' is unknown; choose one of batch, instance, layer, group, none"
    ):
        DcganDiscriminator(32, norm="batched")


@pytest.mark.parametrize("norm", ["batch", "layer"])
@pytest.mark.parametrize("image_size", [32, 128])
def test_the_class_does_not_drown_the_image_at_the_beginning(image_size: int, norm: str) -> None:
    image, classed = [], []
    for seed in range(8):
        torch.manual_seed(seed)
        network = init_weights(DcganDiscriminator(image_size, width=8, norm=norm, classes=2))
        images = torch.rand(8, 1, image_size, image_size) * 2 - 1
        with torch.no_grad():
            image.append(network(images).logits[0])
            classed.append(network(images, torch.arange(8) % 2).logits[0] - image[-1])
    assert 0.1 < float(torch.cat(classed).std() / torch.cat(image).std()) <= 1.5


@pytest.fixture
def features() -> torch.Tensor:
    return torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def smooth(features: torch.Tensor, size: int) -> torch.Tensor:
    return functional.interpolate(features, size=size, mode="bilinear")


@pytest.mark.parametrize("rank", [None, 64])
def test_it_begins_as_bilinear_upsampling(
    features: torch.Tensor, rank: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dense, "NOISE", 0.0)
    layer = DenseImage(8, 32, rank)
    torch.testing.assert_close(layer(features).detach(), smooth(features, 32), atol=1e-5, rtol=1e-5)


def test_the_noise_is_a_share_of_a_random_start(features: torch.Tensor) -> None:
    torch.manual_seed(0)
    apart = DenseImage(8, 32)(features).detach() - smooth(features, 32)
    assert float(apart.std()) == pytest.approx(dense.NOISE, rel=0.15)
    random = DenseImage(8, 32, start="random")(features).detach()
    assert float(random.std()) == pytest.approx(1, rel=0.15)
    with pytest.raises(UserError, match="start 'zero' is unknown; choose bilinear or random"):
        DenseImage(8, 32, start="zero")


@pytest.mark.parametrize("rank", [None, 5])
def test_every_pixel_sees_every_value(rank: int | None) -> None:
    layer = DenseImage(4, 16, rank, start="random")
    weights = layer(torch.eye(16).reshape(16, 1, 4, 4)).detach() - layer.outer.bias.reshape(1, 1, 16, 16)
    assert bool((weights != 0).all())
    assert torch.linalg.matrix_rank(weights.flatten(1)) == (rank or 16)


@pytest.mark.parametrize("values", [16, 64])
def test_a_step_of_adam_moves_the_output_by_the_root_of_the_number_of_weights(values: int) -> None:
    layer, given = PacedLinear(values, 3), torch.ones(1, values)
    before = layer(given).detach()
    optimizer = torch.optim.Adam(layer.parameters(), 0.01)
    layer(given).sum().backward()
    optimizer.step()
    # each weight by 0.01, its value divided by PACE and the root, and the bias by 0.01
    expected = values * 0.01 / (dense.PACE * values**0.5) + 0.01
    torch.testing.assert_close(
        before - layer(given).detach(), torch.full((1, 3), expected), rtol=1e-3, atol=1e-4
    )


def test_it_begins_as_a_given_map_plus_noise() -> None:
    layer, given = PacedLinear(400, 500), torch.randn(20, 400)
    assert float(layer(given).detach().std()) == pytest.approx(1, rel=0.05)
    matrix = torch.randn(500, 400)
    layer.begin_as(matrix)
    assert float((layer(given).detach() - given @ matrix.T).std()) == pytest.approx(dense.NOISE, rel=0.05)


def test_factors_come_closest() -> None:
    rows = bilinear_weights(4, 12)
    whole = torch.kron(rows, rows)
    values = torch.linalg.svdvals(whole)
    for rank in (3, 9, 16):
        outer, inner = separable_factors(rows, rank)
        assert outer.shape == (144, rank) and inner.shape == (rank, 16)
        apart = torch.linalg.matrix_norm(outer @ inner - whole)
        assert float(apart) == pytest.approx(float(values[rank:].square().sum().sqrt()), abs=1e-5)
