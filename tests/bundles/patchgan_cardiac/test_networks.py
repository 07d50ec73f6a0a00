from __future__ import annotations

import pytest
import torch
from torch import nn

from bundles.patchgan_cardiac.networks import HeartGenerator, PatchGridDiscriminator
from common.errors import UserError

LABEL = torch.randint(0, 8, (2, 1, 32, 32), generator=torch.Generator().manual_seed(0)).float()
WIDTHS = (64, 128, 256, 512, 512, 512, 512)


def size(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def convolutions(pairs: list[tuple[int, int]]) -> int:
    """Weights of 4 x 4 convolutions."""
    return sum(16 * source * target for source, target in pairs)


def down_parameters() -> int:
    pairs = list(zip((1, *WIDTHS[:-1]), WIDTHS, strict=True))
    return convolutions(pairs) + 64 + 512 + 2 * sum(WIDTHS[1:-1])  # biases where no norm follows, norms


def test_the_published_codes_generator_has_its_published_size() -> None:
    """Each step up is a transposed convolution and a convolution with bias and norm; the last one narrows."""
    steps = [(512, 512), (512, 512), (512, 512), (512, 256), (256, 128), (128, 64)]
    inner = convolutions(steps) + convolutions([(target, target) for _, target in steps])
    up = inner + 3 * sum(target for _, target in steps)
    outermost = convolutions([(64, 8)]) + 2 * 8 + convolutions([(8, 1)]) + 1
    network = HeartGenerator(skips=False, up="transposed_conv")
    assert size(network) == down_parameters() + up + outermost == 44_649_745
    assert round(size(network) / 1e6, 1) == 44.6


def test_the_papers_generator_is_a_u_net() -> None:
    steps = [(512, 512), (1024, 512), (1024, 512), (1024, 256), (512, 128), (256, 64), (128, 8)]
    up = convolutions(steps) + 2 * sum(target for _, target in steps)
    assert size(HeartGenerator()) == down_parameters() + up + convolutions([(8, 1)]) + 1 == 41_837_905


@pytest.mark.parametrize(
    ("up", "skips", "count"),
    [
        ("transposed", False, 30_688_593),
        ("transposed_conv", True, 55_799_057),
        ("resize", True, 30_247_249),
        ("resize", False, 23_975_761),
    ],
)
def test_the_stated_parameter_counts(up: str, skips: bool, count: int) -> None:
    assert size(HeartGenerator(up=up, skips=skips)) == count
    assert f"{count:,}".replace(",", " ") in str(HeartGenerator.__doc__)


@pytest.mark.parametrize("encoding", ["index", "onehot"])
@pytest.mark.parametrize("skips", [True, False])
@pytest.mark.parametrize("up", ["transposed", "transposed_conv", "resize"])
def test_shape_range_and_script(up: str, skips: bool, encoding: str) -> None:
    network = HeartGenerator(encoding=encoding, skips=skips, up=up, levels=4, width=8, texture=2)
    image = network(LABEL).detach()
    assert image.shape == LABEL.shape and image.dtype == torch.float32
    assert -1 < float(image.min()) < float(image.max()) < 1
    network.eval()
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.script(network)(LABEL), network(LABEL))


@pytest.mark.parametrize(("given", "channels"), [({}, 8), ({"head": 20}, 20), ({"out_channels": 9}, 9)])
def test_channels_before_the_last_convolution(given: dict[str, int], channels: int) -> None:
    network = HeartGenerator(levels=2, **given)
    assert network.last[1].in_channels == channels
    assert network(torch.zeros(1, 1, 8, 8)).shape == (1, given.get("out_channels", 1), 8, 8)


def test_seven_levels_train_on_128_pixels() -> None:
    """One pixel is left in the middle: no norm may stand there."""
    network = HeartGenerator(width=4).train()
    assert network(torch.zeros(1, 1, 128, 128)).shape == (1, 1, 128, 128)


def test_logits_beside_the_image_are_not_bounded() -> None:
    torch.manual_seed(0)
    assert HeartGenerator(out_channels=9, levels=3, width=16).last[1].in_channels == 9
    assert HeartGenerator(out_channels=1, levels=3, width=16).last[1].in_channels == 2
    network = HeartGenerator(out_channels=3, levels=3, width=8).train()
    nn.init.constant_(network.last[1].bias, 9.0)
    out = network(LABEL).detach()
    assert out.shape == (2, 3, 32, 32)
    assert 0.99 < float(out[:, 0].min()) <= float(out[:, 0].max()) <= 1 < 5 < float(out[:, 1:].min())


def test_the_last_layer_is_a_sigmoid_brought_to_the_networks_range() -> None:
    network = HeartGenerator(levels=2, width=8).eval()
    nn.init.zeros_(network.last[1].weight)
    for bias, value in ((0.0, 0.0), (torch.tensor(3.0).log(), 0.5)):  # sigmoid(log 3) = 3/4
        nn.init.constant_(network.last[1].bias, float(bias))
        torch.testing.assert_close(network(LABEL).detach(), torch.full_like(LABEL, value))


@pytest.mark.parametrize("texture", [0, 2])
def test_a_label_gives_one_picture_and_another_label_another(texture: int) -> None:
    torch.manual_seed(0)
    network = HeartGenerator(levels=4, width=8, texture=texture)
    for mode in (True, False):
        network.train(mode)
        with torch.no_grad():
            first, again, other = network(LABEL), network(LABEL), network(7 - LABEL)
        assert torch.equal(first, again) and not torch.equal(first, other)


def seen_by_a_pixel(skips: bool) -> torch.Tensor:
    """How much each pixel of the label matters to the pixel at (3, 28)."""
    torch.manual_seed(0)
    network = HeartGenerator(levels=5, width=8, skips=skips).eval()
    label = LABEL[:1].clone().requires_grad_(True)
    network(label)[0, 0, 3, 28].backward()
    assert label.grad is not None
    return label.grad[0, 0].abs()


def test_skips_keep_the_place() -> None:
    with_skips, without = seen_by_a_pixel(True), seen_by_a_pixel(False)
    assert bool((with_skips != 0).all()) and bool((without != 0).all())
    near = (slice(1, 6), slice(26, 31))
    assert float(with_skips[near].mean() / with_skips.mean()) > 3
    assert float(without[near].mean() / without.mean()) < 2


def test_the_discriminator_has_its_published_size_in_both_variants() -> None:
    pairs = [(2, 64), (64, 128), (128, 256), (256, 512), (512, 1)]
    expected = convolutions(pairs) + 64 + 1 + 2 * (128 + 256 + 512)
    for downsamplings in (3, 4):
        assert size(PatchGridDiscriminator(downsamplings=downsamplings)) == expected == 2_764_609


@pytest.mark.parametrize(("downsamplings", "side"), [(3, 32), (4, 16), (2, 64), (0, 256)])
def test_grids_at_256_pixels(downsamplings: int, side: int) -> None:
    network = PatchGridDiscriminator(width=2, downsamplings=downsamplings)
    image = torch.rand(2, 1, 256, 256)
    critique = network(image, torch.zeros_like(image))
    assert [tuple(logits.shape) for logits in critique.logits] == [(2, 1, side, side)]
    assert [feature.shape[1] for feature in critique.features[0]] == [2, 4, 8, 16]


@pytest.mark.parametrize(("downsamplings", "field"), [(3, 70), (4, 94)])
def test_a_logit_sees_as_many_pixels_as_stated(downsamplings: int, field: int) -> None:
    network = PatchGridDiscriminator(width=2, downsamplings=downsamplings).eval()
    for parameter in network.parameters():
        nn.init.constant_(parameter, 0.1)  # no path cancels another
    image = torch.rand(1, 1, 256, 256, requires_grad=True)
    logits = network(image, torch.zeros_like(image)).logits[0]
    logits[0, 0, logits.shape[2] // 2, logits.shape[3] // 2].backward()
    assert image.grad is not None
    seen = image.grad[0, 0] != 0
    assert (int(seen.any(1).sum()), int(seen.any(0).sum())) == (field, field)


@pytest.mark.parametrize("encoding", ["index", "onehot"])
def test_the_discriminator_sees_the_condition_and_all_image_channels(encoding: str) -> None:
    torch.manual_seed(0)
    network = PatchGridDiscriminator(encoding=encoding, image_channels=3, width=4).eval()
    image = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        logits = network(image, LABEL).logits[0]
        assert not torch.equal(logits, network(image, 7 - LABEL).logits[0])
        for channel in range(3):
            changed = image.clone()
            changed[:, channel] *= 0
            assert not torch.equal(logits, network(changed, LABEL).logits[0])


def test_five_downsamplings_are_refused() -> None:
    with pytest.raises(UserError, match="takes 0 to 4"):
        PatchGridDiscriminator(downsamplings=5)


@pytest.mark.parametrize("norm", ["batch", "instance", "layer", "group", "none"])
def test_norms_of_both_networks(norm: str) -> None:
    torch.manual_seed(0)
    network = HeartGenerator(levels=4, width=4, norm=norm)
    judge = PatchGridDiscriminator(width=4, norm=norm)
    for each in (network, judge):
        found = any(isinstance(module, nn.BatchNorm2d) for module in each.modules())
        assert found is (norm == "batch")
    with torch.no_grad():
        learning = network(LABEL[:1])
        assert torch.equal(network.eval()(LABEL[:1]), learning) is (norm != "batch")
        assert judge(learning, LABEL[:1]).logits[0].shape == (1, 1, 4, 4)


def test_a_model_that_names_no_norm_has_the_one_of_its_time() -> None:
    assert any(isinstance(module, nn.BatchNorm2d) for module in HeartGenerator(levels=3, width=4).modules())


def test_decoder_noise_changes_the_picture_and_needs_noise() -> None:
    """With the noise at the input cut off, what is left comes in beside the steps up."""
    torch.manual_seed(0)
    settings = {"levels": 4, "width": 4, "classes": 3, "norm": "instance"}
    network = HeartGenerator(**settings, noise=2, decoder_noise=True).eval()
    label, noise = LABEL.clamp(max=3), torch.randn(2, 2, 32, 32)
    with torch.no_grad():
        network.down[0][0].weight[:, 1:] = 0
        unseen, last = noise.clone(), noise.clone()
        unseen[:, :, :16, :16] += 3  # the maps are of 4, 8 and 16 pixels, and take the last ones
        last[:, 1, -4:, -4:] += 3  # levels 3, 2, 1 take channels 0, 1, 0
        image = network(label, noise)
        assert torch.equal(image, network(label, unseen)) and not torch.equal(image, network(label, last))
        assert torch.allclose(torch.jit.script(network)(label, noise), image, atol=1e-6)
    assert sum(name.endswith("strength") for name, _ in network.named_parameters()) == 3
    with pytest.raises(UserError, match=r"decoder_noise .* noise is 0; set it to 4"):
        HeartGenerator(**settings, decoder_noise=True)
