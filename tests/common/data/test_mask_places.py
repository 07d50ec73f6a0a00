"""Masks elsewhere than their images, soft masks and values to ignore: every reader says and does the same."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from common.data.datamodules import NoduleData
from common.data.image_io import read_pair
from common.data.intensity import Window
from common.data.layouts import find_samples
from common.data.merge_datasets import MergeSettings, harmonise_slice
from common.data.samples import Sample
from common.errors import UserError
from common.inference.datasets import MaskSlices
from common.trust.readers import ReadingSettings, read_set
from tests.common.data.made_sets import pair_data, square, structure_data

SHAPE = (20, 16, 6)
AFFINE = np.array([[-0.7, 0, 0, 90.0], [0, -0.8, 0, 70.0], [0, 0, 2.5, -310.0], [0, 0, 0, 1]])
WIDE = Window(-1024, 2048)
PATIENTS = 4


def hounsfield(patient: int) -> np.ndarray:
    values = np.full(SHAPE, -1000 + patient, np.int16)
    values[3:17, 2:13] = 40
    values[4:8, 3:6] = 300 - 5 * patient
    return values


def lesion() -> np.ndarray:
    """Voxels far from every symmetry of the volume."""
    values = np.zeros(SHAPE, np.uint8)
    values[4:7, 9:11, 1:3] = 1
    return values


def turned(radians: float) -> np.ndarray:
    cos, sin = np.cos(radians), np.sin(radians)
    return np.array([[cos, -sin, 0, 0], [sin, cos, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]) @ AFFINE


def moved(*voxels: float) -> np.ndarray:
    return AFFINE @ np.block([[np.eye(3), np.array(voxels)[:, None]], [np.zeros((1, 3)), np.ones((1, 1))]])


def write_set(folder: Path, mask: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    """images/ and masks/ of `PATIENTS` patients; the affine is of the masks."""
    for patient in range(PATIENTS):
        for part, voxels, place in (("images", hounsfield(patient), AFFINE), ("masks", mask, affine)):
            (folder / part).mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(voxels, place), folder / part / f"p{patient}.nii.gz")
    return folder


def pairs(folder: Path, work: Path, **values: Any) -> float:
    data = pair_data(folder, 16, window=WIDE, patient_pattern=r"(p\d)", empty_masks="keep", **values)
    return float(sum(data.train.labels.sum((1, 2, 3))) / len({s.patient for s in data.train.samples}))


def nodules(folder: Path, work: Path, **values: Any) -> float:
    data = NoduleData(folder, 16, window=WIDE, parts=(), patient_pattern=r"(p\d)", **values)
    return float(next(data.scans("train")).mask.sum())


def structures(folder: Path, work: Path, **values: Any) -> float:
    given = {"labels": ["LV"], "label_map": {1: "LV"}, "window": WIDE, "patient_pattern": r"(p\d)"}
    data = structure_data(folder, 16, work / "store", min_pixels=0, **given, **values)
    return float(sum(data.train[n]["label"].sum() for n in range(6)))


def harmonised(folder: Path, work: Path, **values: Any) -> float:
    samples = find_samples(folder, patient_pattern=r"(p\d)")[:6]
    slices = [harmonise_slice(sample, MergeSettings(16, WIDE, **values)) for sample in samples]
    return float(sum(each.mask.sum() for each in slices if each.mask is not None))


def trust(folder: Path, work: Path, **values: Any) -> float:
    labels = read_set(folder, ReadingSettings(16, WIDE, fit="pad", slices="all", **values)).labels
    assert labels is not None
    return float(labels.sum()) / PATIENTS


READERS: list[Callable[..., float]] = [pairs, nodules, structures, harmonised, trust]


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize(
    ("affine", "says"),
    [
        (np.eye(4), "its affine is the identity, so its place was lost"),
        (np.diag([-1.0, -1.0, 1.0, 1.0]), "its affine is the identity"),
        (AFFINE @ np.diag([-1.0, 1.0, 1.0, 1.0]), "lies elsewhere"),  # another direction, same voxels
        (moved(0.5, 0, 0), "lies elsewhere .* by up to 0.5 voxels"),
        (AFFINE @ np.diag([1.0, 1.0, 1.2, 1.0]), "lies elsewhere"),
        (turned(2e-3), "lies elsewhere"),
    ],
)
def test_every_reader_refuses_a_mask_elsewhere(
    read: Callable[..., float], tmp_path: Path, affine: np.ndarray, says: str
) -> None:
    with pytest.raises(UserError, match=rf"masks/p\d\.nii\.gz: .*{says}") as caught:
        read(write_set(tmp_path / "set", lesion(), affine), tmp_path)
    text = str(caught.value)
    assert "\n" not in text and "20 x 16 x 6" in text.replace("16 x 20", "20 x 16")


@pytest.mark.parametrize("read", READERS)
def test_every_reader_refuses_a_mask_of_another_size(read: Callable[..., float], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"p\d\.nii\.gz: does not fit .*: 5 slices instead of 6 \(it has "):
        read(write_set(tmp_path / "set", lesion()[..., 1:]), tmp_path)


def flip_x(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same voxels in the same places, stored from the other side."""
    change = np.diag([-1.0, 1.0, 1.0, 1.0])
    change[0, 3] = SHAPE[0] - 1
    return array[::-1].copy(), AFFINE @ change


def swap_axes(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return array.transpose(2, 0, 1).copy(), AFFINE[:, [2, 0, 1, 3]]


@pytest.mark.parametrize("read", READERS)
def test_the_same_place_in_any_order_and_with_what_tools_lose_is_read_alike(
    read: Callable[..., float], tmp_path: Path
) -> None:
    expected = read(write_set(tmp_path / "plain", lesion()), tmp_path / "plain")
    assert expected > 0
    small = AFFINE.copy()
    small[0, 3] += 2e-3
    for number, (mask, affine) in enumerate(
        [flip_x(lesion()), swap_axes(lesion()), (lesion(), small), (lesion(), turned(1e-5))]
    ):
        assert read(write_set(tmp_path / str(number), mask, affine), tmp_path / str(number)) == expected


def test_flipped_and_permuted_masks_lie_where_they_did(tmp_path: Path) -> None:
    plain = [read_pair(s) for s in find_samples(write_set(tmp_path / "a", lesion()))]
    for name, (mask, affine) in {"b": flip_x(lesion()), "c": swap_axes(lesion())}.items():
        other = [read_pair(s) for s in find_samples(write_set(tmp_path / name, mask, affine))]
        assert all(np.array_equal(a.mask, b.mask) for a, b in zip(plain, other, strict=True))  # type: ignore[arg-type]


def test_a_picture_beside_a_volume_fits_only_as_itk_writes_it(tmp_path: Path) -> None:
    gray = np.random.default_rng(0).integers(0, 255, (16, 20), np.uint8)
    Image.fromarray(gray).save(tmp_path / "image.png")
    mask = np.zeros((20, 16, 1), np.uint8)  # columns, rows
    mask[12, 3] = 1
    for diagonal, says in (((-0.5, -0.5, 1), ""), ((1, 1, 1), "mirrored"), ((-1, 1, 1), "mirrored")):
        path = tmp_path / "mask.nii.gz"
        nib.save(nib.Nifti1Image(mask, np.diag([*diagonal, 1.0])), path)
        sample = Sample(tmp_path / "image.png", path, "p")
        if says:
            with pytest.raises(UserError, match=rf"mask\.nii\.gz: is a volume .*image\.png.*{says}"):
                read_pair(sample)
        else:
            found = read_pair(sample).mask
            assert found is not None and np.argwhere(found).tolist() == [[3, 12]]


def test_a_header_with_two_places_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image = nib.Nifti1Image(hounsfield(0), AFFINE)
    image.set_sform(AFFINE, 1)
    image.set_qform(moved(0, 0, 3), 1)
    nib.save(image, tmp_path / "a.nii.gz")
    with caplog.at_level(logging.WARNING):
        for index in (0, 1):
            read_pair(Sample(tmp_path / "a.nii.gz", None, "a", index))
    assert caplog.text.count("a.nii.gz: its qform and sform differ by up to 3 voxels; the sform") == 1
    image.set_qform(AFFINE, 1)
    caplog.clear()
    nib.save(image, tmp_path / "b.nii.gz")
    read_pair(Sample(tmp_path / "b.nii.gz", None, "b", 0))
    assert not caplog.records


def soft() -> np.ndarray:
    values = lesion().astype(np.float32)
    values[3, 9:11, 1:3] = 0.3  # the rim
    return values


def masks_alone(folder: Path, work: Path, **values: Any) -> float:
    slices = MaskSlices(folder / "masks", square(16), **values)
    return float(slices.labels.sum()) / PATIENTS


@pytest.mark.parametrize("read", [*READERS, masks_alone])
def test_every_reader_takes_soft_masks_by_one_setting(read: Callable[..., float], tmp_path: Path) -> None:
    expected = read(write_set(tmp_path / "hard", lesion()), tmp_path / "hard")
    for name, mask in (
        ("float labels", lesion() * np.float32(0.99998)),
        ("soft", soft()),
        ("ignored", np.where(soft() == np.float32(0.3), -1, lesion().astype(np.int16))),
        ("both", np.where(soft() == np.float32(0.3), 255, 0.9 * lesion()).astype(np.float32)),
    ):
        folder, work = write_set(tmp_path / name, mask), tmp_path / name
        given: dict[str, Any] = {
            "float labels": {},
            "soft": {"mask_threshold": 0.5},
            "ignored": {"ignore_value": -1},
            "both": {"mask_threshold": 0.5, "ignore_value": [-1, 255]},
        }[name]
        if given:
            with pytest.raises(UserError, match=r"p\d\.nii\.gz: .*--(mask_threshold|ignore_value -1)"):
                read(folder, work / "first")
        assert read(folder, work / "second", **given) == expected, name


def test_ignored_voxels_are_out_of_the_metric_of_nodules(tmp_path: Path) -> None:
    mask = lesion().astype(np.int16)
    mask[10:12, 5, 4] = 255
    data = NoduleData(write_set(tmp_path, mask), 16, window=WIDE, parts=(), ignore_value=255)
    scan = next(data.scans("train"))
    assert scan.has_excluded and scan.excluded_mask().sum() == 2 and scan.mask.sum() == 12
    assert not (scan.mask & scan.excluded_mask()).any() and len(scan.nodules) == 1
