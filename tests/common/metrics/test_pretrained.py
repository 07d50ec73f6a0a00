from __future__ import annotations

from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from torch import Tensor, nn

from common.errors import UserError
from common.metrics.features import extractor_by_name
from common.metrics.pretrained import (
    eight_bit_tensorflow,
    inception,
    inception_at_hand,
    inception_classifier,
    tensorflow_bilinear,
)


class Colours(nn.Module):
    """Stands for a scripted network: 2048 features, the first three the channel means of its input."""

    def forward(self, images: Tensor, return_features: bool = False) -> Tensor:
        assert return_features
        features = torch.zeros(images.shape[0], 2048)
        features[:, :3] = images.mean((2, 3))
        features[:, 3] = images.shape[2]
        return features


class ColourMaps(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        features = torch.zeros(images.shape[0], 2048, 7, 7)
        features[:, :3] = images.mean((2, 3))[:, :, None, None]
        return features


class Classes(nn.Module):
    def forward(self, images: Tensor, return_features: bool = False, no_output_bias: bool = False) -> Tensor:
        assert no_output_bias and not return_features
        return torch.softmax(images.mean((2, 3)) * torch.tensor([0.0, 0.0, 0.01]), dim=1)


def offline(*arguments: object, **keywords: object) -> None:
    raise URLError("no route")


def test_inception_gets_three_channels_of_0_to_255(tmp_path: Path) -> None:
    torch.jit.script(Colours()).save(str(tmp_path / "weights.pt"))
    extractor = extractor_by_name("inception", tmp_path / "weights.pt")
    features = extractor(torch.tensor([-1.0, 0.2])[:, None, None, None].expand(2, 1, 40, 50))
    assert extractor.name == "inception" and features.shape == (2, 2048)
    assert features[:, :4].tolist() == [[0, 0, 0, 299], pytest.approx([153, 153, 153, 299], rel=1e-5)]


def test_tensorflows_resizing_of_a_ramp_is_dst_times_scale() -> None:
    """f(y, x) = 100 y + x is read at (i H / size, j W / size), up to the last row and column."""
    ramp = (100 * torch.arange(10.0)[:, None] + torch.arange(20.0))[None, None]
    for size in (7, 25, 299):
        rows = (torch.arange(size) * 10 / size).clamp_max(9)
        columns = (torch.arange(size) * 20 / size).clamp_max(19)
        expected = 100 * rows[:, None] + columns
        assert torch.allclose(tensorflow_bilinear(ramp, size)[0, 0], expected, rtol=1e-5, atol=1e-3)


def test_tensorflows_resizing_known_answers() -> None:
    """Made larger, the last value is held; made smaller, rows between are left out, not averaged."""
    line = torch.tensor([[0.0, 10, 20, 90]]).expand(1, 1, 4, 4)
    assert tensorflow_bilinear(line, 8)[0, 0, 0].tolist() == [0, 5, 10, 15, 20, 55, 90, 90]
    assert tensorflow_bilinear(line, 2)[0, 0, 0].tolist() == [0, 20]
    assert tensorflow_bilinear(line, 4).equal(line)
    assert tensorflow_bilinear(line.mT, 8)[0, 0, :, 3].tolist() == [0, 5, 10, 15, 20, 55, 90, 90]


def test_images_are_eight_bit_before_they_are_resized() -> None:
    images = torch.tensor([-1.2, -1, -0.997, -0.995, 0.2, 1])[None, None, None].expand(1, 1, 6, 6)
    levels = (eight_bit_tensorflow(images, 6)[0, 0, 0] + 1) * 127.5
    assert levels.tolist() == pytest.approx([0, 0, 0, 1, 153, 255], abs=1e-4)
    between = (eight_bit_tensorflow(images, 12)[0, 0, 0, 7] + 1) * 127.5
    assert float(between) == pytest.approx((1 + 153) / 2, abs=1e-4)


@pytest.mark.slow
def test_inception_sees_what_its_own_graph_would_make_of_the_files() -> None:
    """The published file resizes by itself: fed with 8-bit images of their own size it gives our features."""
    weights = inception_at_hand()
    if weights is None:
        pytest.skip("Inception's weights are not at hand")
    numbers = torch.Generator().manual_seed(0)
    levels = torch.randint(0, 256, (2, 1, 128, 128), generator=numbers).float()
    network = torch.jit.load(str(weights))
    with torch.inference_mode():
        expected = network(levels.expand(-1, 3, -1, -1), return_features=True)
    assert torch.allclose(inception(weights)(levels / 127.5 - 1), expected, rtol=1e-3, atol=1e-3)


def test_radimagenet_gets_centred_channels_and_pools_maps(tmp_path: Path) -> None:
    torch.jit.script(ColourMaps()).save(str(tmp_path / "weights.pt"))
    extractor = extractor_by_name("radimagenet", tmp_path / "weights.pt")
    features = extractor(torch.zeros(1, 1, 40, 50))
    assert extractor.name == "radimagenet" and features.shape == (1, 2048)
    assert features[0, :3].tolist() == pytest.approx([0.5 - 0.406, 0.5 - 0.456, 0.5 - 0.485], rel=1e-4)


def test_inception_classifies_without_its_last_bias(tmp_path: Path) -> None:
    torch.jit.script(Classes()).save(str(tmp_path / "weights.pt"))
    classifier = inception_classifier(tmp_path / "weights.pt")
    probabilities = classifier(torch.ones(2, 1, 40, 50))
    assert classifier.name == "inception"
    assert torch.allclose(probabilities, torch.softmax(torch.tensor([0, 0, 2.55]), 0).expand(2, 3))


def test_weights_at_hand_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert inception_at_hand() is None
    (tmp_path / "checkpoints").mkdir()
    file = tmp_path / "checkpoints" / "inception-2015-12-05.pt"
    file.touch()
    assert inception_at_hand() == file


@pytest.mark.parametrize("name", ["inception", "radimagenet"])
def test_unreachable_weights_say_what_to_do(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    monkeypatch.setattr(torch.hub, "load", offline)
    with pytest.raises(UserError, match=f"extractor {name}: .*--extractor_weights.*gridvgg"):
        extractor_by_name(name)


@pytest.mark.parametrize("name", ["inception", "radimagenet"])
def test_bad_weights_files_are_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.pt: no such weights file"):
        extractor_by_name(name, tmp_path / "absent.pt")
    (tmp_path / "broken.pt").write_bytes(b"not a network")
    with pytest.raises(UserError, match=r"broken\.pt: not a TorchScript file"):
        extractor_by_name(name, tmp_path / "broken.pt")
