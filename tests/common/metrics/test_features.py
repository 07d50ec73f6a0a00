from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from common.errors import UserError
from common.metrics.features import (
    GridVGG,
    RandomVGG,
    _calibrated_weights,
    extract,
    extractor_by_name,
    pattern_vectors,
    pixel_vectors,
    selection_extractor,
)
from common.metrics.fid import fid


class Mean:
    """Features one can compute in one's head: mean and maximum."""

    name = "mean"
    dimension = 2

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        assert not torch.is_grad_enabled()
        return torch.stack([images.mean((1, 2, 3)), images.amax((1, 2, 3))], dim=1)


def test_names() -> None:
    assert [extractor_by_name(name).name for name in ("gridvgg", "randvgg")] == ["gridvgg", "randvgg"]
    names = "gridvgg, lite0, inception, radimagenet, randvgg"
    with pytest.raises(UserError, match=f"'vgg' is unknown; choose one of {names}"):
        extractor_by_name("vgg")


def test_an_extractor_blind_to_layout_chooses_no_checkpoint() -> None:
    assert selection_extractor("gridvgg").sees_layout is True
    with pytest.raises(UserError, match=r"randvgg is blind to layout and cannot choose .* gridvgg or lite0"):
        selection_extractor("randvgg")


def test_batches_do_not_change_the_features() -> None:
    images = torch.arange(5.0)[:, None, None, None].expand(5, 1, 2, 2) / 5
    features = extract(Mean(), images, batch_size=2)
    assert features.tolist() == [[pytest.approx(i / 5), pytest.approx(i / 5)] for i in range(5)]
    assert extract(Mean(), images[:0]).shape == (0, 2)


def test_pixels_are_means_of_areas_in_the_unit_interval() -> None:
    image = torch.full((1, 1, 4, 8), -1.0)
    image[0, 0, :2, :2] = 1
    image[0, 0, 3, 7] = 1
    assert pixel_vectors(image, 2).tolist() == [[0.5, 0, 0, 0.125]]


def test_small_images_stay_as_they_are() -> None:
    image = torch.tensor([[-1.0, 0.0, 1.0], [0.5, -0.5, 0.0]])[None, None]
    assert pixel_vectors(image, 8).tolist() == [[0, 0.5, 1, 0.75, 0.25, 0.5]]


def test_patterns_forget_level_and_contrast() -> None:
    image = torch.tensor([[-1.0, 0.0], [0.5, 0.5]])[None, None]
    images = torch.cat([image, image / 4 - 0.5, -image, torch.zeros_like(image)])
    patterns = pattern_vectors(images, 2)
    assert patterns[0].tolist() == pytest.approx([-1 / 1.5**0.5, 0, 0.5 / 1.5**0.5, 0.5 / 1.5**0.5])
    assert torch.allclose(patterns[0], patterns[1]) and torch.allclose(patterns[0], -patterns[2])
    assert patterns[3].tolist() == [0, 0, 0, 0]


CHECK_MEAN = 0.44199  # of all features of two pictures
CHECK_LAST = 0.24911  # the last feature of the second
CHECK_CELLS = 0.0375092  # mean square of the grid's features
CHECK_LAST_CELL = 0.214492  # the last of them of the second


@pytest.fixture(scope="module")
def network() -> RandomVGG:
    return RandomVGG()


def pictures(count: int, size: int = 64) -> Tensor:
    """Discs of random place and size on a gentle slope, with fine stripes: something to blur."""
    numbers = np.random.default_rng(5)
    rows, columns = np.mgrid[:size, :size] / size
    images = []
    for y, x, radius in numbers.uniform((0.3, 0.3, 0.1), (0.7, 0.7, 0.3), (count, 3)):
        disc = np.hypot(rows - y, columns - x) < radius
        images.append(np.where(disc, 0.5, -0.8 + 0.3 * rows) + 0.1 * np.sign(np.sin(columns * 90)))
    return torch.from_numpy(np.stack(images)[:, None].astype(np.float32))


def blurred(images: Tensor, times: int) -> Tensor:
    for _ in range(times):
        images = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    return images


def test_features_have_the_declared_shape_and_range(network: RandomVGG) -> None:
    features = network(pictures(3))
    assert features.shape == (3, network.dimension) and network.dimension == 240
    assert features.dtype == torch.float32 and not features.requires_grad
    assert features.min() >= 0 and features.std() > 0.01


def test_weights_are_the_same_whatever_the_global_seed(network: RandomVGG) -> None:
    torch.manual_seed(99)
    expected = torch.rand(2)
    torch.manual_seed(99)
    _calibrated_weights.cache_clear()
    again = RandomVGG()
    assert torch.equal(torch.rand(2), expected)  # the global random state is left alone
    for ours, theirs in zip(network.parameters(), again.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert not torch.equal(RandomVGG(seed=1)(pictures(1)), network(pictures(1)))


def test_known_features_guard_the_definition_of_the_metric(network: RandomVGG) -> None:
    features = network(pictures(2))
    assert float(features.double().mean()) == pytest.approx(CHECK_MEAN, rel=1e-4)
    assert float(features[1, 239]) == pytest.approx(CHECK_LAST, rel=1e-3)


def test_fid_rises_with_blur_and_with_noise(network: RandomVGG) -> None:
    images = pictures(12)
    real = network(images)
    numbers = torch.Generator().manual_seed(0)
    noise = torch.randn(images.shape, generator=numbers)
    blur = [fid(real, network(blurred(images, times))) for times in (1, 3, 9)]
    noisy = [fid(real, network((images + sigma * noise).clamp(-1, 1))) for sigma in (0.05, 0.15, 0.45)]
    assert 1 < blur[0] < 0.8 * blur[1] < 0.8 * blur[2]
    assert 0 < 2 * noisy[0] < noisy[1] < noisy[2]
    assert fid(real, network(noise.clamp(-1, 1))) > 3 * max(*blur, noisy[1])


def test_an_enlarged_image_is_judged_like_the_original(network: RandomVGG) -> None:
    small = pictures(4, 128)
    large = F.interpolate(small, scale_factor=2, mode="nearest")
    size = network(small).norm()
    difference = (network(small) - network(large)).norm() / size
    assert difference < 0.1
    assert (network(small) - network(blurred(small, 3))).norm() / size > 2 * difference


@pytest.fixture(scope="module")
def grid() -> GridVGG:
    return GridVGG()


def test_grid_features_begin_with_the_averages(network: RandomVGG, grid: GridVGG) -> None:
    features = grid(pictures(3))
    assert features.shape == (3, grid.dimension) and grid.dimension == 240 + 2 * 16 * 16 == 752
    assert torch.allclose(features[:, :240], network(pictures(3)), atol=1e-6)
    assert not features.requires_grad and features.dtype == torch.float32
    assert (network.sees_layout, grid.sees_layout) == (False, True)


def test_a_cell_sees_its_place_against_the_image(grid: GridVGG) -> None:
    """A square in the upper right corner: that corner's cell changes most, all others alike."""
    empty = torch.full((1, 1, 128, 128), -0.8)
    image = empty.clone()
    image[..., 4:28, 100:124] = 0.6
    change = (grid(image) - grid(empty))[0]
    for start in (240, 240 + 256):
        cells = change[start : start + 256].view(4, 4, 16).norm(dim=-1)
        assert cells.argmax() == 3  # the first row's last
        assert cells[2:, :2].max() < 0.1 * cells[0, 3]
        parts = change[start : start + 256].view(16, 16)
        assert parts.sum(0).abs().max() < 1e-3 * cells.max()  # differences from an average sum to 0


def test_neither_the_averages_nor_the_grid_outweigh_the_other(grid: GridVGG) -> None:
    """The averages have more length, the grid more variance, both within a factor of twenty."""
    features = grid(pictures(12))
    parts = features[:, :240], features[:, 240:]
    lengths = [float(part.square().sum(1).mean()) for part in parts]
    variances = [float(part.var(0).sum()) for part in parts]
    assert 1 < lengths[0] / lengths[1] < 20 and 1 < variances[1] / variances[0] < 20


def test_the_grid_tells_upside_down_where_the_averages_hardly_do(network: RandomVGG, grid: GridVGG) -> None:
    """Discs of the upper half of the image only."""
    images = pictures(24, 64)
    images[:, :, 32:] = -0.7
    first, second = images[:12], images[12:]
    rises = [
        fid(extractor(first), extractor(second.flip(-2))) / fid(extractor(first), extractor(second))
        for extractor in (network, grid)
    ]
    assert rises[0] < 3 < 4 < rises[1]


def test_known_grid_features_guard_the_definition_of_the_metric(grid: GridVGG) -> None:
    features = grid(pictures(2)).double()
    assert float(features[:, 240:].square().mean()) == pytest.approx(CHECK_CELLS, rel=1e-4)
    assert float(features[1, 751]) == pytest.approx(CHECK_LAST_CELL, rel=1e-3)
