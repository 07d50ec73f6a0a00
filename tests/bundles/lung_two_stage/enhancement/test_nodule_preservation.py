"""The term looks at nodules and nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bundles.lung_two_stage.enhancement.nodule_preservation import (
    NoduleDice,
    NodulePreservation,
    Segmenter,
    load_segmenter,
)
from common.data.intensity import WINDOWS, Window
from common.files import write_json
from common.networks.generators import ResnetGenerator


def images() -> tuple[Tensor, Tensor]:
    """A composite of zeros and a mask of one pixel of class 2."""
    mask = torch.zeros(1, 1, 7, 7)
    mask[..., 3, 3] = 2
    return torch.zeros(1, 1, 7, 7), mask


def test_changes_elsewhere_cost_nothing() -> None:
    composite, mask = images()
    enhanced = torch.ones(1, 1, 7, 7)
    enhanced[..., 2:5, 2:5] = 0
    assert float(NodulePreservation(margin=1)(enhanced, composite, mask)) == 0
    assert float(NodulePreservation(margin=2)(enhanced, composite, mask)) > 0


def test_a_lost_nodule_costs_its_contrast() -> None:
    composite, mask = images()
    enhanced = composite + 0.5 * (mask > 0)
    assert float(NodulePreservation(0.0, 0)(enhanced, composite, mask)) == 0.5
    assert float(NodulePreservation(0.0, 1)(enhanced, composite, mask)) == pytest.approx(0.5 / 9)
    # 12 pairs of neighbours in 3 x 3, of which 4 have the pixel: 2 of 6 down, 2 of 6 to the right
    assert float(NodulePreservation(1.0, 1)(enhanced, composite, mask)) == pytest.approx(
        0.5 / 9 + 2 * 0.5 * 2 / 6
    )


def test_a_shift_of_all_gray_values_keeps_edges() -> None:
    composite, mask = images()
    shifted = composite + 0.25
    assert float(NodulePreservation(5.0)(shifted, composite, mask)) == pytest.approx(0.25)


def test_without_nodules_it_is_nothing_and_differentiable() -> None:
    composite = torch.zeros(1, 1, 5, 5, requires_grad=True)
    loss = NodulePreservation()(composite + 1, torch.zeros(1, 1, 5, 5), torch.zeros(1, 1, 5, 5))
    loss.backward()
    assert float(loss.detach()) == 0 and float(composite.grad.abs().sum()) == 0


def test_a_batch_without_masks_is_an_error() -> None:
    with pytest.raises(ValueError, match="no mask"):
        NodulePreservation()(*images(), None)


def test_contrast_is_against_the_ring() -> None:
    """32 pixels: a gap of 1 and a ring of 2. What both lose is no contrast."""
    mask = torch.zeros(2, 1, 32, 32)
    mask[0, :, 12:18, 12:18] = 1
    composite = mask - 1
    term = NodulePreservation(0.0, 0, contrast=1.0)
    assert float(term(composite + 0.25, composite, mask)) == pytest.approx(0.25)  # the nodule's own change
    lost = composite - 0.5 * mask
    assert float(term(lost, composite, mask)) == pytest.approx(0.5 + 0.5 / 2)  # the second has no nodule
    elsewhere = composite.clone()
    elsewhere[..., :4] = 1
    assert float(term(elsewhere, composite, mask)) == 0


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
    received = []
    segmenter = Segmenter(nn.Identity(), LUNG, Window(-600, 0))
    segmenter.network.register_forward_hook(lambda _m, inputs, _o: received.append(inputs[0]))
    hu = torch.tensor([-1000.0, -600, -300, -150, 0, 400])
    segmenter(((hu + 1000) / 700 - 1).reshape(1, 1, 1, 6))
    torch.testing.assert_close(received[0].flatten(), torch.tensor([-1.0, -1, 0, 0.5, 1, 1]))


def test_without_a_model_there_is_no_segmenter(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        assert load_segmenter(tmp_path / "model.pt", LUNG) is None
    assert "no segmenter yet" in caplog.text


def test_a_saved_network_is_found_by_what_stands_beside_it(tmp_path: Path) -> None:
    arguments = {"width": 4, "blocks": 1}
    network = ResnetGenerator(**arguments)
    torch.save(network.state_dict(), tmp_path / "model.pt")
    target = "common.networks.generators.ResnetGenerator"
    about = {"window_hu": [-600, 0], "network": {"target": target, "arguments": arguments}}
    write_json(tmp_path / "model.json", about)
    segmenter = load_segmenter(tmp_path / "model.pt", LUNG)
    assert segmenter is not None and segmenter.scale == pytest.approx(1400 / 600)
    assert segmenter(torch.zeros(1, 1, 16, 16)).dtype == torch.bool
