from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from common.errors import UserError
from common.inference.labels import LabelSlices
from common.inference.sources import find_sources
from common.inference.variants import LabelVariants, aspect
from tests.common.inference.hearts import AFFINES, model_facts, save

SIZE = 32
STRONG = {"elastic": 0.05, "growth": 0.02, "mix": 0.8}


def ball(shift: int = 0, depth: int = 8) -> np.ndarray:
    """A ventricle (1) in its wall (5), in all slices but the outer two; (x, y, z)."""
    x, y, z = np.mgrid[:SIZE, :SIZE, :depth]
    distance = np.hypot(x - 15 - shift, y - 16)
    label = np.where(distance < 6 + shift, 1, np.where(distance < 9 + shift, 5, 0))
    return (label * ((z > 0) & (z < depth - 1))).astype(np.uint8)


def slices(folder: Path, **facts: Any) -> LabelSlices:
    return LabelSlices(find_sources(input_dir=folder), model_facts(SIZE, **facts))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(3):
        save(tmp_path / "labels" / f"heart{number}_label.nii.gz", ball(number, 8 + number))
    return tmp_path / "labels"


def test_each_file_has_its_variants_and_each_variant_its_slices(folder: Path) -> None:
    made = LabelVariants(slices(folder), STRONG, variants=2)
    names = [f"heart{file}_variant{number:02d}" for file in range(3) for number in (1, 2)]
    assert [variant.name for variant in made.variants] == names == [str(path) for path in made.files]
    assert [len(places) for places in made.files.values()] == [8, 8, 9, 9, 10, 10] and len(made) == 54
    item = made[20]
    assert item["sample"] == 20 and item["label"].shape == (1, SIZE, SIZE)
    assert item["label"].dtype == torch.float32 and set(item["label"].unique().tolist()) <= {0.0, 1.0, 5.0}


def test_variants_differ_from_each_other_and_keep_the_anatomy(folder: Path) -> None:
    made = LabelVariants(slices(folder), STRONG, variants=2)
    first, second = (
        np.stack([made.condition(p) for p in made.files[Path(f"heart0_variant0{n}")]]) for n in (1, 2)
    )
    own = made.original(made.variants[0].file)
    assert not np.array_equal(first, second) and not np.array_equal(first, own)
    for stack in (first, second):
        assert set(np.unique(stack)) == {0, 1, 5}
        assert np.count_nonzero(stack) == pytest.approx(np.count_nonzero(own), rel=0.5)
        assert not stack[0].any() and not stack[-1].any()


def test_the_partner_is_another_patient(folder: Path) -> None:
    made = LabelVariants(slices(folder), STRONG, variants=8)
    for variant in made.variants:
        assert variant.partner is not None and variant.partner is not variant.file
    alone = LabelVariants(slices(folder), {"elastic": 0.05, "mix": 0.0})
    assert all(variant.partner is None for variant in alone.variants)


def test_the_same_seed_gives_the_same_in_any_order(folder: Path) -> None:
    one, two = (LabelVariants(slices(folder), STRONG, variants=2, seed=4) for _ in range(2))
    forth = [one.condition(place).copy() for place in range(len(one))]
    back = [two.condition(place).copy() for place in reversed(range(len(two)))][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(forth, back, strict=True))
    other = LabelVariants(slices(folder), STRONG, variants=2, seed=5)
    assert not all(np.array_equal(other.condition(n), forth[n]) for n in range(len(other)))


def test_strength_zero_gives_the_file_itself(folder: Path) -> None:
    still = LabelVariants(slices(folder), {"elastic": 0.0, "growth": 0.0})
    plain = slices(folder)
    for place in range(len(plain)):
        assert torch.equal(still[place]["label"], plain[place]["label"])


def test_pictures_are_perturbed_in_their_plane(tmp_path: Path) -> None:
    for number in range(2):
        Image.fromarray(ball(number)[..., 4]).save(tmp_path / f"case{number}_01.png")
    made = LabelVariants(slices(tmp_path), STRONG)
    assert [variant.name for variant in made.variants] == ["case0_01_variant01", "case1_01_variant01"]
    assert made.variants[0].partner is made.variants[1].file
    assert set(made[0]["label"].unique().tolist()) == {0.0, 1.0, 5.0}


@pytest.mark.parametrize(
    ("axis", "spacing", "fit", "expected"),
    [
        ("axial", None, "stretch", 1.5 / (0.75 * 1.5)),
        ("coronal", None, "stretch", 1.5 / (1.5 * (24 + 12) / 2 / 32)),
        ("coronal", None, "pad", 1.5 / (1.5 * 24 / 32)),
        ("coronal", None, "crop", 1.5 / (1.5 * 12 / 32)),
        ("axial", 0.5, "pad", 3.0),
    ],
)
def test_the_distance_of_slices_is_counted_in_their_pixels(
    tmp_path: Path, axis: str, spacing: float | None, fit: str, expected: float
) -> None:
    save(tmp_path / "heart.nii.gz", ball()[:24, :24].repeat(2, axis=2)[:, :, :12], AFFINES["lps"])
    made = LabelVariants(slices(tmp_path, axis=axis, spacing=spacing, fit=fit))
    assert aspect(made.variants[0].file.condition) == pytest.approx(expected)


def test_bad_settings_are_one_line(folder: Path) -> None:
    with pytest.raises(UserError, match="variants 0"):
        LabelVariants(slices(folder), variants=0)
    with pytest.raises(UserError, match="condition of this model is an image"):
        LabelVariants(slices(folder, condition="image"))
