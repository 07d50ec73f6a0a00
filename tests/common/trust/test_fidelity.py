from __future__ import annotations

import json

import torch
from torch import Tensor

from common.trust.fidelity import fidelity
from common.trust.findings import Figure, Section
from tests.common.trust.made_textures import Coarse, noise, pictures, sets_with

NAMES = [
    "fid_coarse",
    "fid_infinity_coarse",
    "kid_coarse",
    "excess_kid_coarse",
    "precision_coarse",
    "recall_coarse",
    "density_coarse",
    "coverage_coarse",
    "pair_ssim",
    "pair_distance_coarse",
]


class Brightness:
    """Bright and dark as two classes."""

    name = "brightness"

    def __call__(self, images: Tensor) -> Tensor:
        bright = (images.mean((1, 2, 3)) * 20).sigmoid()
        return torch.stack([bright, 1 - bright], dim=1)


def measured(synthetic: Tensor, **sizes: int) -> tuple[dict[str, Figure], Section]:
    section = fidelity(sets_with(synthetic, **sizes), Coarse(), 0, 20)
    return {figure.name: figure for figure in section.figures}, section


def test_other_real_images_are_as_good_as_real_ones() -> None:
    found, section = measured(pictures(60, 2))
    assert list(found) == NAMES
    assert found["precision_coarse"].value.mean > 0.8 and found["recall_coarse"].value.mean > 0.8
    assert found["fid_coarse"].value.mean < 2 * found["fid_coarse"].baselines["real_real"].mean
    assert "does not tell" in section.statement and "as diverse" in section.statement


def test_a_collapsed_generator_is_precise_and_recalls_little() -> None:
    few = pictures(4, 2).repeat(15, 1, 1, 1) + 0.02 * noise(60, 0)
    found, section = measured(few)
    assert found["precision_coarse"].value.mean > 0.7 > 0.3 > found["recall_coarse"].value.mean
    assert found["coverage_coarse"].value.mean < 0.5 * found["coverage_coarse"].baselines["real_real"].mean
    assert found["pair_ssim"].value.mean > found["pair_ssim"].baselines["real_real"].mean
    assert "mode collapse" in section.statement and "KID tells" in section.statement


def test_loud_noise_is_not_precise() -> None:
    loud = noise(60, 0).sign() * torch.linspace(-1, 1, 60)[torch.randperm(60)].view(-1, 1, 1, 1)
    loud[:, :, ::8] = 1  # far from every texture in the coarsest places
    found, section = measured(loud + 1.5 * torch.ones(60, 1, 32, 32))
    assert found["precision_coarse"].value.mean < 0.1 and found["density_coarse"].value.mean < 0.1
    assert "do not look like" in section.statement and "no nearer" in section.statement


def test_every_figure_has_its_baselines_and_is_plain() -> None:
    sets = sets_with(pictures(40, 2))
    section = fidelity(sets, Coarse(), 3, 10, Brightness())
    names = [figure.name for figure in section.figures]
    assert names == [*NAMES, "is_brightness"]
    for figure in section.figures:
        same = set() if figure.name.startswith("fid_infinity") else {"blurred_real"}
        assert set(figure.baselines) == {"real_real", "mean_image"} | same
        assert figure.seed == 3 and figure.note
        assert not figure.value.bounded or figure.value.low <= figure.value.mean <= figure.value.high, (
            figure.name
        )
        assert figure.extractor == ("" if figure.name == "pair_ssim" else figure.name.split("_")[-1])
    better = {figure.name: figure.better for figure in section.figures}
    assert better["fid_infinity_coarse"] == "lower" and better["is_brightness"] == "higher"
    assert better["recall_coarse"] == "higher" and better["pair_distance_coarse"] == "as real"
    assert section.figures[0].value.n == section.figures[0].baselines["real_real"].n == 40
    assert json.loads(json.dumps(section.plain(), allow_nan=False))["facts"]["features"] == 16
    assert fidelity(sets, Coarse(), 3, 10, Brightness()) == section
    (plot,) = section.plots
    assert [line.x[:2] for line in plot.lines] == [[0.0, 1 / 40]] * 2


def test_few_images_are_warned_of() -> None:
    _, section = measured(pictures(12, 2), heldout=12)
    assert any("12 synthetic and 12 held-out images for 16 features" in text for text in section.warnings)
    assert any("held-out images of only 6 patients" in text for text in section.warnings)
    _, section = measured(pictures(60, 2), real=20)
    assert any("rests on 20 images" in text for text in section.warnings)
    found, section = measured(pictures(3, 2), heldout=3, real=4)
    assert "Too few patients to say" in section.statement and not found["kid_coarse"].value.bounded
    assert "fid_infinity_coarse" not in found and section.facts["neighbours"] == 1 and not section.plots
