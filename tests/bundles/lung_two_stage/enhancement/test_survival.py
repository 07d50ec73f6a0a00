"""Dice of what a segmenter finds, in its own window."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bundles.lung_two_stage.enhancement.survival import NoduleDice, Segmenter, load_segmenter
from common.data.intensity import WINDOWS, Window
from common.files import write_json
from common.networks.resnet_generator import ResnetGenerator


class Bright(nn.Module):
    """Takes what is brighter than 0 for a nodule; ``classes`` channels, the background first."""

    def __init__(self, classes: int = 1) -> None:
        super().__init__()
        self.classes = classes

    def forward(self, images: Tensor) -> Tensor:
        if self.classes == 1:
            return images
        return torch.cat([torch.zeros_like(images), images, images - 1], dim=1)


LUNG = WINDOWS["lung"]


@pytest.mark.parametrize("classes", [1, 2])
def test_dice_counts_all_images_together(classes: int) -> None:
    images, masks = torch.full((2, 1, 4, 4), -1.0), torch.zeros(2, 1, 4, 4)
    images[0, 0, 0, :4], masks[0, 0, 0, :2] = 1, 2  # 4 found, 2 true, both among them
    masks[1, 0, 1, :3] = 1  # 3 missed
    metric = NoduleDice(Segmenter(Bright(classes), LUNG, LUNG))
    for image, mask in zip(images, masks, strict=True):
        metric.update((image[None], mask[None]))
    assert metric.compute() == pytest.approx(2 * 2 / (4 + 5))


def test_the_segmenter_sees_its_own_window() -> None:
    """-1000..400 HU shown to a segmenter of -600..0 HU: its middle is -300 HU, theirs too."""
    seen = []
    segmenter = Segmenter(nn.Identity(), LUNG, Window(-600, 0))
    segmenter.network.register_forward_hook(lambda _m, inputs, _o: seen.append(inputs[0]))
    hu = torch.tensor([-1000.0, -600, -300, -150, 0, 400])
    segmenter(((hu + 1000) / 700 - 1).reshape(1, 1, 1, 6))
    torch.testing.assert_close(seen[0].flatten(), torch.tensor([-1.0, -1, 0, 0.5, 1, 1]))


def test_without_a_model_there_is_no_segmenter(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        assert load_segmenter(tmp_path / "model.pt", LUNG) is None
    assert "no segmenter yet" in caplog.text


def test_a_saved_network_is_found_by_what_stands_beside_it(tmp_path: Path) -> None:
    arguments = {"width": 4, "blocks": 1}
    network = ResnetGenerator(**arguments)
    torch.save(network.state_dict(), tmp_path / "model.pt")
    target = "common.networks.resnet_generator.ResnetGenerator"
    about = {"window_hu": [-600, 0], "network": {"target": target, "arguments": arguments}}
    write_json(tmp_path / "model.json", about)
    segmenter = load_segmenter(tmp_path / "model.pt", LUNG)
    assert segmenter is not None and segmenter.scale == pytest.approx(1400 / 600)
    assert segmenter(torch.zeros(1, 1, 16, 16)).dtype == torch.bool
