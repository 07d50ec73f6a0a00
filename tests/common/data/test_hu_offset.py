"""A CT stored as HU + 1024 is refused by every reader, and read as HU where the offset is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from bundles.lung_two_stage.extraction.slices import find_healthy_slices, read_healthy_scans
from common.data.datamodules import NoduleData
from common.data.image_io import read_pixels
from common.data.intensity import WINDOWS, Window
from common.data.layouts import find_samples
from common.data.merge_datasets import MergeSettings, harmonise_slice
from common.data.samples import Sample
from common.errors import UserError
from common.inference.checkpoint import image_as_in_training
from common.inference.datasets import LabelSlices, Source
from common.paths import repository_root
from common.trust.readers import IMAGES, STRUCTURES, ReadingSettings, read_set
from tests.common.data.made_scans import write_mhd
from tests.common.data.made_sets import image_data, pair_data, structure_data
from tests.common.data.test_bad_input import write_dicom

SIZE, PATIENTS = 16, 4
WIDE = Window(-1024, 2048)
REFUSED = r"p0\.nii\.gz: holds values up to \d+ but none of air.*; give .*--hu_offset -1024, or --hu_offset 0"


def hu(patient: int) -> np.ndarray:
    """Air, a body and a bone whose HU differ from patient to patient: int16 (X, Y, Z)."""
    values = np.full((SIZE, SIZE, 3), -1000 + 10 * patient, np.int16)
    values[3:13, 2:12] = 40 + patient
    values[5:8, 4:6] = 700 - patient
    values[10, 3, 1:] = 200  # no slice is like the one below
    return values


def label() -> np.ndarray:
    values = np.zeros((SIZE, SIZE, 3), np.uint8)
    values[6:9, 5:7] = 1
    return values


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    """``hu`` and ``stored`` (HU + 1024): images/ and masks/ of the same patients."""
    for name, offset, kind in (("hu", 0, np.int16), ("stored", 1024, np.uint16)):
        for patient in range(PATIENTS):
            for part, voxels in (
                ("images", (hu(patient) + offset).astype(kind)),
                ("masks", label()),
                ("flat/images", (hu(patient) + offset).astype(kind)),
            ):
                place = tmp_path / name / part
                place.mkdir(parents=True, exist_ok=True)
                affine = np.diag([-1.0, -1.0, 2.0, 1.0])
                nib.save(nib.Nifti1Image(voxels, affine), place / f"p{patient}.nii.gz")
    return {name: tmp_path / name for name in ("hu", "stored")}


def pairs(folder: Path, work: Path, **offset: Any) -> np.ndarray:
    return pair_data(folder, SIZE, window=WIDE, patient_pattern=r"(p\d)", **offset).train.images


def images(folder: Path, work: Path, **offset: Any) -> np.ndarray:
    return image_data(folder / "flat", SIZE, window=WIDE, **offset).train.images


def structures(folder: Path, work: Path, **offset: Any) -> np.ndarray:
    given = {"labels": ["LV"], "label_map": {1: "LV"}, "window": WIDE}
    return structure_data(folder, SIZE, work / folder.name, **given, **offset).train.images


def nodules(folder: Path, work: Path, **offset: Any) -> np.ndarray:
    data = NoduleData(folder, SIZE, window=WIDE, parts=(), **offset)
    return np.stack([scan.hu for scan in data.scans("train")])


def healthy_slices(folder: Path, work: Path, **offset: Any) -> np.ndarray:
    parts = find_healthy_slices(folder / "flat", (0.7, 0.15, 0.15), 0, 0.3, 0, **offset)
    samples = sorted([*parts.generation, *parts.enhancer, *parts.test], key=lambda sample: sample.name)
    return np.stack([scan.hu for scan in read_healthy_scans(samples, WIDE)])


def harmonised(folder: Path, work: Path, **offset: Any) -> np.ndarray:
    settings = MergeSettings(SIZE, WIDE, **offset)
    samples = find_samples(folder, patient_pattern=r"(p\d)")
    return np.stack([harmonise_slice(sample, settings).image for sample in samples])


def one_image(folder: Path, work: Path, **offset: Any) -> np.ndarray:
    info = {"window_hu": [WIDE.lower, WIDE.upper]}
    return image_as_in_training(folder / "images" / "p0.nii.gz", info, SIZE, **offset).numpy()


def condition(folder: Path, work: Path, **offset: Any) -> np.ndarray:
    info = {
        "condition": "image",
        "image_size": SIZE,
        "intensity": {"kind": "window", "lower": WIDE.lower, "upper": WIDE.upper},
    }
    slices = LabelSlices([Source(folder / "images" / "p0.nii.gz")], info, **offset)
    return np.stack([slices[index]["label"].numpy() for index in range(len(slices))])


def trust(folder: Path, work: Path, **offset: Any) -> np.ndarray:
    settings = ReadingSettings(SIZE, WIDE, kind=IMAGES, **offset)
    return read_set(folder / "flat" / "images", settings).images.numpy()


def trust_structures(folder: Path, work: Path, **offset: Any) -> np.ndarray:
    info = {"condition": "image", "image_size": SIZE, "image_dir": "images"}
    info["intensity"] = {"kind": "window", "lower": WIDE.lower, "upper": WIDE.upper}
    settings = ReadingSettings(SIZE, WIDE, kind=STRUCTURES, info=info, **offset)
    return read_set(folder, settings).images.numpy()


READERS = [
    pairs,
    images,
    structures,
    nodules,
    healthy_slices,
    harmonised,
    one_image,
    condition,
    trust,
    trust_structures,
]


@pytest.mark.parametrize("read", READERS)
def test_every_reader_refuses_hu_plus_1024_and_takes_the_offset(
    read: Callable[..., np.ndarray], folders: dict[str, Path], tmp_path: Path
) -> None:
    right = read(folders["hu"], tmp_path)
    assert right.max() > right.min()
    with pytest.raises(UserError, match=REFUSED.replace("p0", r"p\d")):
        read(folders["stored"], tmp_path)
    np.testing.assert_allclose(read(folders["stored"], tmp_path, hu_offset=-1024), right, atol=1e-4)
    np.testing.assert_allclose(read(folders["hu"], tmp_path, hu_offset=-1024), right, atol=1e-4)  # has air
    moved = read(folders["stored"], tmp_path, hu_offset=0)
    assert not np.allclose(moved, right, atol=0.1)  # as it was taken before


def test_arrays_without_air_are_refused_too(tmp_path: Path) -> None:
    stack = np.stack([hu(patient)[..., 0] for patient in range(3)])
    for name, values in {"hu": stack, "stored": stack + 1024}.items():
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "a.npy", values.astype(np.int16))
    right = read_set(tmp_path / "hu", ReadingSettings(SIZE, WIDE)).images
    with pytest.raises(UserError, match=r"a\.npy#000000: holds values up to 1724 but none of air"):
        read_set(tmp_path / "stored", ReadingSettings(SIZE, WIDE))
    found = read_set(tmp_path / "stored", ReadingSettings(SIZE, WIDE, hu_offset=-1024)).images
    np.testing.assert_allclose(found, right, atol=1e-6)


def test_magnetic_resonance_is_not_refused(tmp_path: Path) -> None:
    values = (hu(0).astype(np.int32) + 1024) * 2  # 0..3448
    for part, voxels in (("images", values.astype(np.int16)), ("labels", label())):
        for patient in range(PATIENTS):
            (tmp_path / "mr" / part).mkdir(parents=True, exist_ok=True)
            path = tmp_path / "mr" / part / f"p{patient}.nii.gz"
            nib.save(nib.Nifti1Image(voxels, np.diag([-1.0, -1.0, 2.0, 1.0])), path)
    given = {"labels": ["LV"], "label_map": {1: "LV"}}
    with pytest.raises(UserError, match=r"or --hu_offset 0 if they are HU.*; for MR set percentiles"):
        structure_data(tmp_path / "mr", SIZE, tmp_path / "store", **given)
    data = structure_data(tmp_path / "mr", SIZE, tmp_path / "store", percentiles=[1, 99], **given)
    assert data.train.images.max() == 1.0
    sample = Sample(tmp_path / "mr" / "images" / "p0.nii.gz", None, "p0", 1)
    assert harmonise_slice(sample, MergeSettings(SIZE, WINDOWS["lung"]), "MR").image.max() > 0.999
    with pytest.raises(UserError, match="none of air"):
        harmonise_slice(sample, MergeSettings(SIZE, WINDOWS["lung"]), "CT")


def test_labels_have_no_air_and_are_read_all_the_same(folders: dict[str, Path], tmp_path: Path) -> None:
    affine = np.diag([-1.0, -1.0, 2.0, 1.0])
    for patient in range(PATIENTS):
        path = folders["hu"] / "masks" / f"p{patient}.nii.gz"
        nib.save(nib.Nifti1Image(label().astype(np.uint16) * 820, affine), path)
    assert pair_data(folders["hu"], SIZE, window=WIDE, patient_pattern=r"(p\d)").train.labels.max() == 1


@pytest.mark.parametrize("kind", ["mhd", "dicom"])
def test_other_formats_are_looked_at_too(tmp_path: Path, kind: str) -> None:
    values = hu(0)
    if kind == "mhd":
        place = tmp_path / "a.mhd"
        write_mhd(place, values.T + 1024)
    else:  # the made slices are rescaled by -1024, as scanners write them
        place = tmp_path / "a"
        write_dicom(place, values + 1024)
    sample = Sample(place, None, "a", 1)
    with pytest.raises(UserError, match=r"a(\.mhd)?: holds values up to 1724 but none of air"):
        read_pixels(sample)
    found = read_pixels(replace(sample, hu_offset=-1024)).values
    assert (found.min(), found.max()) == (-1000, 700)


CT_READERS = (
    "PairData",
    "ImageData",
    "StructureData",
    "NoduleData",
    "CubeData",
    "LabelSlices",
    "LatentSpace",
)
MASK_READERS = ("PairData", "StructureData", "NoduleData", "CubeData", "LabelSlices", "MaskSlices")
OVERLAYS = ("generate_pairs.yaml",)  # of inference.yaml, which has the settings


@pytest.mark.parametrize(
    ("setting", "readers", "least"),
    [
        ("hu_offset", CT_READERS, 14),
        ("source_range", CT_READERS, 14),
        ("mask_threshold", MASK_READERS, 10),
        ("ignore_value", MASK_READERS, 10),
    ],
)
def test_every_config_that_reads_files_has_the_setting(
    setting: str, readers: tuple[str, ...], least: int
) -> None:
    seen = 0
    for path in sorted(repository_root().glob("bundles/*/configs/*.yaml")):
        text = path.read_text()
        if count := sum(text.count(f".{reader}\n") for reader in readers):
            assert text.count(f'{setting}: "@{setting}"') == count, path
            assert (f"\n{setting}: null #" in text) != (path.name in OVERLAYS), path
            seen += count
    assert seen >= least
