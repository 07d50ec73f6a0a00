from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from common.errors import UserError
from common.networks.discriminators import (
    KINDS,
    AugmentationDraw,
    AugmentedDiscriminator,
    ConditionalPatchDiscriminator,
    DiscriminatorOutput,
    augmented,
    augmented_discriminator,
    draw_augmentation,
    moved,
)


def field(layers: int, scale: int = 0) -> tuple[int, int]:
    """Height and width of what one logit in the middle sees, by its gradient."""
    net = ConditionalPatchDiscriminator(channels=4, num_layers_d=layers, scales=scale + 1, norm="INSTANCE")
    for module in net.modules():
        if isinstance(module, nn.InstanceNorm2d):  # it looks at the whole picture
            module.forward = lambda x: x
        if isinstance(module, nn.Conv2d):
            nn.init.constant_(module.weight, 0.01)  # no path cancels another
    image = torch.rand(1, 1, 352, 352, requires_grad=True)
    logits = net(image, torch.zeros_like(image)).logits[scale]
    logits[0, 0, logits.shape[2] // 2, logits.shape[3] // 2].backward()
    assert image.grad is not None
    seen = image.grad[0, 0] != 0
    rows, columns = seen.any(1).nonzero(), seen.any(0).nonzero()
    return int(rows.max() - rows.min()) + 1, int(columns.max() - columns.min()) + 1


@pytest.mark.parametrize(("layers", "side"), [(1, 16), (2, 34), (3, 70), (4, 142)])
def test_a_logit_sees_as_many_pixels_as_published(layers: int, side: int) -> None:
    assert field(layers) == (side, side)


def test_the_next_scale_sees_twice_as_far() -> None:
    assert field(2, scale=1) == (2 * 34 + 1, 2 * 34 + 1)  # the pool of 3 adds one


def test_shapes_of_logits_and_features() -> None:
    net = ConditionalPatchDiscriminator(condition_channels=2, channels=4, scales=2)
    critique = net(torch.rand(3, 1, 64, 64), torch.rand(3, 2, 64, 64))
    assert [tuple(logits.shape) for logits in critique.logits] == [(3, 1, 6, 6), (3, 1, 2, 2)]
    assert [tuple(f.shape[:2]) for f in critique.features[0]] == [(3, 4), (3, 8), (3, 16), (3, 32)]


def test_the_papers_discriminator_has_its_published_size() -> None:
    """Isola et al. 2017: 4 x 4 convolutions 2-64-128-256-512-1; norms have 2 values a channel."""
    convolutions = [(2, 64), (64, 128), (128, 256), (256, 512), (512, 1)]
    weights = sum(16 * source * target for source, target in convolutions)
    # biases where no norm follows, and the norms' scales and shifts
    assert sum(p.numel() for p in ConditionalPatchDiscriminator().parameters()) == weights + 64 + 1 + 2 * 896


def test_the_condition_matters_and_can_be_left_out() -> None:
    image, condition = torch.rand(1, 1, 32, 32), torch.rand(1, 1, 32, 32)
    net = ConditionalPatchDiscriminator(channels=4, num_layers_d=1).eval()
    assert not torch.equal(net(image, condition).logits[0], net(image, 1 - condition).logits[0])
    alone = ConditionalPatchDiscriminator(condition_channels=0, channels=4, num_layers_d=1)
    assert alone(image).logits[0].shape == (1, 1, 14, 14)


def test_spectral_norm_bounds_every_convolution() -> None:
    torch.manual_seed(0)
    net = ConditionalPatchDiscriminator(channels=4, num_layers_d=2, spectral=True)
    convolutions = [module for module in net.modules() if isinstance(module, nn.Conv2d)]
    for _ in range(30):  # power iterations
        net(torch.rand(1, 1, 32, 32), torch.rand(1, 1, 32, 32))
    for convolution in convolutions:
        largest = torch.linalg.matrix_norm(convolution.weight.flatten(1), ord=2)
        assert float(largest.detach()) == pytest.approx(1, abs=0.02)


def drawn(**changed: object) -> AugmentationDraw:
    """No change but what is named, for one image."""
    nothing = AugmentationDraw(
        torch.zeros(1), torch.zeros(1), torch.zeros(1, 2).long(), torch.full((1, 2), 1000)
    )
    return nothing._replace(**{name: torch.tensor([value]) for name, value in changed.items()})


@pytest.fixture
def image() -> Tensor:
    return (torch.arange(24.0) / 24).reshape(1, 1, 4, 6)


def test_nothing_drawn_changes_nothing(image: Tensor) -> None:
    torch.testing.assert_close(augmented(image, drawn()), image)


def test_brightness_and_contrast(image: Tensor) -> None:
    torch.testing.assert_close(augmented(image, drawn(brightness=0.25)), image + 0.25)
    more = augmented(image, drawn(contrast=0.5))
    assert float(more.mean()) == pytest.approx(float(image.mean()))
    assert float(more.std()) == pytest.approx(1.5 * float(image.std()))


def test_translation_moves_down_and_right_and_leaves_the_middle_gray(image: Tensor) -> None:
    moved = augmented(image - 1, drawn(shift=(1, -2)))
    torch.testing.assert_close(moved[..., 1:, :-2], image[..., :-1, 2:] - 1)
    assert not moved[..., 0, :].any() and not moved[..., -2:].any()


def test_the_hole_is_half_a_side_wide_and_may_reach_beyond_the_edge(image: Tensor) -> None:
    cut = augmented(image - 1, drawn(hole=(1, 2)))
    assert not cut[..., 1:3, 2:5].any() and int((cut == 0).sum()) == 6
    cut = augmented(image - 1, drawn(hole=(-1, 5)))
    assert int((cut == 0).sum()) == 1 and float(cut[0, 0, 0, 5]) == 0


def test_draws_keep_to_their_ranges_and_reach_them() -> None:
    torch.manual_seed(0)
    draw = draw_augmentation(torch.zeros(5000, 1, 32, 64))
    assert draw.shift.min(0).values.tolist() == [-4, -8] and draw.shift.max(0).values.tolist() == [4, 8]
    assert draw.hole.min(0).values.tolist() == [-8, -16] and draw.hole.max(0).values.tolist() == [24, 48]
    for values in (draw.brightness, draw.contrast):
        assert -0.5 <= float(values.min()) < -0.49 and 0.49 < float(values.max()) <= 0.5
        assert abs(float(values.mean())) < 0.02


def test_gradients_flow_through_to_the_image(image: Tensor) -> None:
    image.requires_grad_(True)
    augmented(image, drawn(brightness=0.1, contrast=0.5, shift=(1, 0), hole=(0, 0))).sum().backward()
    seen = image.grad[0, 0]
    assert bool((seen[-1] == seen[-1, 0]).all()) and float(seen[1, 4]) > float(seen[-1, 0])


class Remembering(nn.Module):
    """Keeps what it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []
        self.conditions: list[Tensor | None] = []
        self.layer = nn.Conv2d(1, 1, 1)

    def forward(self, image: Tensor, condition: Tensor | None = None) -> DiscriminatorOutput:
        self.seen.append(image)
        self.conditions.append(condition)
        return DiscriminatorOutput([self.layer(image[:, :1])], [[condition]])


def test_only_in_training_and_from_torchs_generator(image: Tensor) -> None:
    inner = Remembering()
    network = AugmentedDiscriminator(inner).train()
    state = torch.get_rng_state()
    network(image)
    network(image)
    torch.set_rng_state(state)
    network(image)
    assert torch.equal(inner.seen[0], inner.seen[2]) and not torch.equal(inner.seen[0], inner.seen[1])
    state = torch.get_rng_state()
    said = network.eval()(image, image)
    assert torch.equal(inner.seen[3], image) and said.features[0][0] is image
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("kinds", [("translation",), ("cutout",), ("translation", "cutout"), KINDS])
def test_a_map_moves_with_its_image(kinds: tuple[str, ...]) -> None:
    """Where the image shows class k (gray k), the label says k, wherever both have come to lie."""
    torch.manual_seed(0)
    label = torch.randint(1, 8, (64, 1, 12, 16)).float()
    inner = Remembering()
    AugmentedDiscriminator(inner, kinds)(label.clone(), label)
    seen, condition = inner.seen[0], inner.conditions[0]
    assert condition is not None and condition.shape == label.shape and not torch.equal(condition, label)
    assert set(condition.unique().tolist()) <= set(range(8))  # classes stay classes
    gone = condition == 0
    assert bool(gone.any()) and not bool(seen[gone].any())
    if "brightness" not in kinds:
        assert torch.equal(seen, condition)
    for picture, classes in zip(seen, condition, strict=True):  # one gray for each class of a picture
        assert all(float(picture[classes == k].std()) < 1e-5 for k in range(1, 8) if (classes == k).sum() > 1)


@pytest.mark.parametrize("kind", [torch.uint8, torch.int64, torch.bool, torch.float16, torch.float64])
def test_a_map_keeps_its_type(kind: torch.dtype) -> None:
    label = torch.ones(2, 1, 12, 16, dtype=kind)
    found = moved(label, draw_augmentation(label))
    assert found.dtype == kind and 0 < int(found.sum()) < label.numel()


def test_conditions_that_are_no_maps_stay() -> None:
    inner = Remembering()
    for condition in (torch.randn(2, 5), torch.tensor([0, 1])):
        AugmentedDiscriminator(inner)(torch.rand(2, 1, 8, 8), condition)
        assert inner.conditions[-1] is condition


def test_gray_changes_in_the_picture_alone(image: Tensor) -> None:
    pair = torch.cat([image, image - 1], dim=1)
    found = augmented(pair, drawn(brightness=0.25, contrast=0.5, shift=(1, 0)))
    torch.testing.assert_close(
        found[:, :1], augmented(image, drawn(brightness=0.25, contrast=0.5, shift=(1, 0)))
    )
    torch.testing.assert_close(found[:, 1:], augmented(image - 1, drawn(shift=(1, 0))))


def test_images_of_a_batch_are_changed_differently() -> None:
    torch.manual_seed(0)
    inner = Remembering()
    AugmentedDiscriminator(inner)(torch.rand(1, 1, 16, 16).expand(4, -1, -1, -1))
    assert len({tuple(seen.flatten().tolist()) for seen in inner.seen[0]}) == 4


def test_settings() -> None:
    inner = Remembering()
    for nothing in (None, "", [], ()):
        assert augmented_discriminator(inner, nothing) is inner
    assert augmented_discriminator(inner, "all").kinds == KINDS
    assert augmented_discriminator(inner, "cutout, contrast").kinds == ("cutout", "contrast")
    with pytest.raises(UserError, match="augmentation 'colour' is unknown; choose of brightness"):
        augmented_discriminator(inner, "colour")
