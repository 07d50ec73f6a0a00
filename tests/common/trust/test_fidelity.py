from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor

from common.metrics.bootstrap import Resamples, resample_counts
from common.metrics.fid import fid
from common.rng import make_rng
from common.trust.fidelity import fid_infinity, fidelity
from common.trust.report import Figure, Section
from tests.common.trust.made import Coarse, noise, pictures, sets_with

KINDS = ["fid", "fid_infinity", "kid", "excess_kid", "precision", "recall", "density", "coverage"]
NAMES = [*(f"{kind}_coarse" for kind in KINDS), "pair_ssim", "pair_distance_coarse"]


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
        value = figure.value
        assert not value.bounded or value.low <= value.mean <= value.high, figure.name
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


def features(count: int, seed: int, offset: float = 0.0) -> torch.Tensor:
    return torch.from_numpy(make_rng(seed, "features").normal(offset, 1, (count, 8))).float()


def resamples(count: int) -> Resamples:
    return Resamples(resample_counts(None, count, 20, make_rng(0, "test")))


def test_the_bias_of_few_images_goes() -> None:
    """Two samples of one distribution: 0 with infinitely many images, more with few."""
    found = [fid_infinity(features(200, seed), features(200, seed + 50), resamples(400)) for seed in range(5)]
    plain = [fid(features(200, seed), features(200, seed + 50)) for seed in range(5)]
    for each, value in zip(found, plain, strict=True):
        assert each is not None and each.value.n == 200
        assert each.means[0] == pytest.approx(value) and each.means == sorted(each.means)
        assert each.numbers == pytest.approx([200, 100, 200 / 3, 50], rel=1e-3)
        assert each.value.low <= each.value.mean <= each.value.high
    assert sum(each.value.mean for each in found if each) < 0.4 * sum(plain)  # each at least 0


def test_a_true_distance_stays() -> None:
    found = fid_infinity(features(300, 0), features(200, 1, 0.5), resamples(500))
    assert found is not None and found.value.mean == pytest.approx(8 * 0.25, rel=0.2)
    assert found == fid_infinity(features(300, 0), features(200, 1, 0.5), resamples(500))


def clustered(patients: int, slices: int, seed: int, name: str) -> tuple[torch.Tensor, list[str]]:
    """Slices half as far from their patient as patients are from each other: (patients * slices, 4)."""
    numbers = make_rng(seed, name)
    drawn = numbers.normal(0, 1, (patients, 1, 4)) + numbers.normal(0, 0.5, (patients, slices, 4))
    names = [f"{name}{place // slices}" for place in range(patients * slices)]
    return torch.from_numpy(drawn.reshape(-1, 4)).float(), names


def test_it_is_patients_that_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """One distribution twice: cut by slices, the bias of few patients stays."""
    monkeypatch.setattr("common.trust.fidelity.LEFT_OUT", 2)  # no interval is asked for
    by_patient, by_slice = [], []
    for seed in range(6):
        (real, names), (fake, others) = clustered(24, 6, seed, "a"), clustered(32, 6, seed, "b")
        for found, ids in ((by_patient, (names, others)), (by_slice, (None, None))):
            sides = [
                Resamples.draw(each, len(part), 20, make_rng(0, "test"))
                for each, part in zip(ids, (real, fake), strict=True)
            ]
            line = fid_infinity(real, fake, sides[0].join(sides[1]), seed)
            assert line is not None
            found.append(line.value.mean)
    assert sum(by_slice) / 6 > 0.2 and sum(by_patient) < 0.4 * sum(by_slice)


def test_few_patients_have_a_value_or_none_and_no_interval() -> None:
    (real, names), (fake, others) = clustered(5, 24, 0, "a"), clustered(14, 24, 0, "b")
    sides = [Resamples.draw(each, len(each), 20, make_rng(0, "test")) for each in (names, others)]
    found = fid_infinity(real, fake, sides[0].join(sides[1]))
    assert found is not None and found.value.mean >= 0 and not found.value.bounded
    three = Resamples.draw(names[:72], 72, 20, make_rng(0, "test"))
    assert fid_infinity(real[:72], fake, three.join(sides[1])) is None
    assert fid_infinity(features(7, 0), features(100, 1), resamples(107)) is None
