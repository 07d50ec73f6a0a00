from __future__ import annotations

from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from torch import Tensor, nn

from common.errors import UserError
from common.metrics.features import extractor_by_name
from common.metrics.pretrained import inception_at_hand, inception_classifier


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
    with pytest.raises(UserError, match=f"extractor {name}: .*--extractor_weights.*randvgg"):
        extractor_by_name(name)


@pytest.mark.parametrize("name", ["inception", "radimagenet"])
def test_bad_weights_files_are_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.pt: no such weights file"):
        extractor_by_name(name, tmp_path / "absent.pt")
    (tmp_path / "broken.pt").write_bytes(b"not a network")
    with pytest.raises(UserError, match=r"broken\.pt: not a TorchScript file"):
        extractor_by_name(name, tmp_path / "broken.pt")
