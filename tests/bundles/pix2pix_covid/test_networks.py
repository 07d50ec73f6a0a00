from __future__ import annotations

import pytest
import torch
from monai.bundle import ConfigParser
from torch import nn

from bundles.pix2pix_covid.networks import UnetGenerator
from common.errors import UserError
from common.networks.state import init_weights
from tests.bundles.pix2pix_covid.case import CONFIGS

MASK = (torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0)) > 0.5).float()


def size(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_the_papers_generator_has_its_published_size() -> None:
    """Isola et al. 2017: 4 x 4 convolutions down, and up with the skips beside; norms scale and shift."""
    down = [(1, 64), (64, 128), (128, 256), (256, 512), (512, 512), (512, 512), (512, 512), (512, 512)]
    up = [(512, 512), (1024, 512), (1024, 512), (1024, 512), (1024, 256), (512, 128), (256, 64), (128, 1)]
    weights = sum(16 * source * target for source, target in down + up)
    normed = [target for _, target in down[1:-1] + up[:-1]]
    biases = 64 + 512 + 1  # where no norm follows
    expected = weights + 2 * sum(normed) + biases
    assert size(UnetGenerator(levels=8, ngf=64)) == expected == 54_408_385


@pytest.mark.parametrize("norm", ["batch", "instance", "layer", "group", "none"])
@pytest.mark.parametrize("upsample", ["transposed", "resize"])
def test_shape_and_range(norm: str, upsample: str) -> None:
    network = UnetGenerator(levels=4, ngf=4, norm=norm, upsample=upsample)
    image = network(MASK).detach()
    assert image.shape == MASK.shape and image.dtype == torch.float32
    assert -1 < float(image.min()) < float(image.max()) < 1


@pytest.mark.parametrize("norm", ["batch", "instance", "layer", "group"])
def test_all_norms_but_batch_draw_as_they_learn(norm: str) -> None:
    """Isola et al. 2017, section 3.4: in the paper's recipe a batch is one image."""
    torch.manual_seed(0)
    network = UnetGenerator(levels=4, ngf=4, norm=norm, dropout=0.0)
    with torch.no_grad():
        for _ in range(3):
            learning = network(MASK[:1])
        drawn = network.eval()(MASK[:1])
    assert torch.equal(drawn, learning) is (norm != "batch")


def test_the_papers_recipe_draws_as_it_learns() -> None:
    """Its batches are single images: running averages are of others."""
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / f"{name}.yaml") for name in ("train", "paper")])
    given = {name: value for name, value in parser.get("network_def").items() if not name.startswith("_")}
    assert parser.get("batch_size") == 1 and given["levels"] == 8
    torch.manual_seed(0)
    network, mask = UnetGenerator(**{**given, "ngf": 1, "dropout": 0.0}), torch.ones(1, 1, 256, 256)
    with torch.no_grad():
        learning = network(mask)
        assert torch.equal(network.eval()(mask), learning)


def test_a_model_that_names_no_norm_has_the_one_of_its_time() -> None:
    assert any(isinstance(module, nn.BatchNorm2d) for module in UnetGenerator(levels=3, ngf=2).modules())


def test_channels_of_labels_and_of_images() -> None:
    network = UnetGenerator(in_channels=3, out_channels=2, levels=3, ngf=4)
    assert network(torch.rand(1, 3, 16, 24)).shape == (1, 2, 16, 24)


def test_the_whole_picture_is_seen_and_skips_keep_the_place() -> None:
    network = UnetGenerator(levels=5, ngf=4, norm="none").eval()
    mask = MASK[:1].clone().requires_grad_(True)
    network(mask)[0, 0, 3, 28].backward()
    assert mask.grad is not None and bool((mask.grad != 0).all())
    assert float(mask.grad[0, 0, 1:6, 26:31].abs().mean()) > 3 * float(mask.grad.abs().mean())


def test_resize_upsampling_has_no_grid_where_transposed_convolution_has_one() -> None:
    """A flat input stays flat away from the border (Odena et al. 2016)."""

    def roughness(upsample: str) -> float:
        torch.manual_seed(0)
        network = init_weights(UnetGenerator(levels=2, ngf=8, norm="none", dropout=0, upsample=upsample), 0.5)
        inner = network(torch.ones(1, 1, 64, 64))[0, 0, 24:40, 24:40]
        return float(inner.detach().std())

    assert roughness("resize") < 1e-5 < roughness("transposed")


@pytest.mark.parametrize("always", [False, True])
def test_noise_at_inference(always: bool) -> None:
    torch.manual_seed(0)
    network = UnetGenerator(levels=5, ngf=4, dropout=0.5, noise_at_inference=always).eval()
    first, second = network(MASK), network(MASK)
    assert torch.equal(first, second) is not always
    network.train()
    assert not torch.equal(network(MASK), network(MASK))


def test_dropout_acts_in_three_inner_levels() -> None:
    def probabilities(levels: int) -> list[float]:
        return [up.probability for up in UnetGenerator(levels=levels, ngf=4, dropout=0.4).up]

    assert probabilities(8) == [0, 0.4, 0.4, 0.4, 0, 0, 0, 0]
    assert probabilities(3) == [0, 0.4, 0]


@pytest.mark.parametrize("size", [64, 512])
def test_texture_is_fixed_travels_with_the_weights_and_fits_any_size(size):
    network = UnetGenerator(levels=3, ngf=2, texture=2).eval()
    torch.manual_seed(1)
    other = UnetGenerator(levels=3, ngf=2, texture=2).eval()
    assert torch.equal(network.texture.noise, other.texture.noise)
    other.load_state_dict(network.state_dict())
    mask = torch.zeros(2, 1, size, size)
    with torch.no_grad():
        image = network(mask)
        assert torch.equal(image, other(mask))
        assert torch.allclose(torch.jit.script(network)(mask), image, atol=1e-6)
    assert image.shape == mask.shape
    assert image[0, 0, 16:-16, 16:-16].std() > 0  # an empty mask alone would give a flat middle


def test_decoder_noise_changes_the_picture_at_every_level() -> None:
    """With the noise at the input cut off, what is left comes in beside the decoder."""
    torch.manual_seed(0)
    network = UnetGenerator(levels=4, ngf=4, norm="instance", dropout=0.0, noise=2, decoder_noise=True).eval()
    with torch.no_grad():
        network.down[0].conv.weight[:, 1:] = 0
    noise = torch.randn(2, 2, 32, 32)
    other = noise.clone()
    other[:, :, :16, :16] += 3  # the decoder's maps are of 4, 8 and 16 pixels, and take the last ones
    last = noise.clone()
    last[:, 1, -4:, -4:] += 3  # levels 3, 2, 1 take channels 0, 1, 0
    with torch.no_grad():
        image = network(MASK, noise)
        assert torch.equal(image, network(MASK, noise)) and torch.equal(image, network(MASK, other))
        assert not torch.equal(image, network(MASK, last))
        assert torch.allclose(torch.jit.script(network)(MASK, noise), image, atol=1e-6)
    strengths = [name for name, _ in network.named_parameters() if name.endswith("grain.strength")]
    assert len(strengths) == 3


def test_decoder_noise_needs_noise() -> None:
    with pytest.raises(UserError, match=r"decoder_noise .* noise is 0; set it to 4"):
        UnetGenerator(levels=3, ngf=2, decoder_noise=True)
