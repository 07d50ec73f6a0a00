"""Every reader says and does the same: HU + 1024, masks in other places, soft masks and values to ignore."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import yaml
from PIL import Image

from bundles.lung_two_stage.extraction.slices import find_healthy_slices, read_healthy_scans
from common.data.datamodules import NoduleData
from common.data.image_io import read_pair, read_pixels
from common.data.intensity import WINDOWS, Window
from common.data.layouts import find_samples
from common.data.merge_datasets import MergeSettings, harmonise_slice
from common.data.samples import Sample
from common.errors import UserError
from common.inference.checkpoint import image_as_in_training
from common.inference.datasets import LabelSlices, MaskSlices, Source
from common.paths import repository_root
from common.trust.image_sets import read_set
from common.trust.readers import IMAGES, STRUCTURES, ReadingSettings
from tests.common.data.made_sets import image_data, pair_data, square, structure_data
from tests.common.data.made_volumes import write_dicom, write_mhd

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


READERS = [pairs, images, structures, nodules, healthy_slices, harmonised]
READERS += [one_image, condition, trust, trust_structures]


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


CT_READERS = "PairData ImageData LoadCachedSliced NoduleData CubeData LabelSlices LatentSpace"
MASK_READERS = "PairData LoadCachedSliced NoduleData CubeData LabelSlices MaskSlices"
OVERLAYS = ("generate_pairs.yaml", "cnn_vgg.yaml")  # of configs that have the settings


def components(node: Any) -> Iterator[dict[str, Any]]:
    """All parts of a config with a ``_target_``."""
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    if isinstance(node, dict) and "_target_" in node:
        yield node
    for child in children:
        yield from components(child)


@pytest.mark.parametrize(
    ("setting", "readers", "least"),
    [
        ("hu_offset", CT_READERS, 14),
        ("source_range", CT_READERS, 14),
        ("mask_threshold", MASK_READERS, 10),
        ("ignore_value", MASK_READERS, 10),
    ],
)
def test_every_config_that_reads_files_has_the_setting(setting: str, readers: str, least: int) -> None:
    count = 0
    for path in sorted(repository_root().glob("bundles/*/configs/*.yaml")):
        config = yaml.safe_load(path.read_text())
        for part in components(config):
            if part["_target_"].rpartition(".")[2] in readers.split():
                assert part[setting] == f"@{setting}", path
                assert (setting in config) != (path.name in OVERLAYS) and config.get(setting) is None, path
                count += 1
    assert count >= least


SHAPE = (20, 16, 6)
AFFINE = np.array([[-0.7, 0, 0, 90.0], [0, -0.8, 0, 70.0], [0, 0, 2.5, -310.0], [0, 0, 0, 1]])


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


def write_masked_set(folder: Path, mask: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    """images/ and masks/ of `PATIENTS` patients; the affine is of the masks."""
    for patient in range(PATIENTS):
        for part, voxels, place in (("images", hounsfield(patient), AFFINE), ("masks", mask, affine)):
            (folder / part).mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(voxels, place), folder / part / f"p{patient}.nii.gz")
    return folder


def lesion_of_pairs(folder: Path, work: Path, **values: Any) -> float:
    data = pair_data(folder, 16, window=WIDE, patient_pattern=r"(p\d)", empty_masks="keep", **values)
    return float(sum(data.train.labels.sum((1, 2, 3))) / len({s.patient for s in data.train.samples}))


def nodule_voxels(folder: Path, work: Path, **values: Any) -> float:
    data = NoduleData(folder, 16, window=WIDE, parts=(), patient_pattern=r"(p\d)", **values)
    return float(next(data.scans("train")).mask.sum())


def structure_pixels(folder: Path, work: Path, **values: Any) -> float:
    given = {"labels": ["LV"], "label_map": {1: "LV"}, "window": WIDE, "patient_pattern": r"(p\d)"}
    data = structure_data(folder, 16, work / "store", min_pixels=0, **given, **values)
    return float(sum(data.train[n]["label"].sum() for n in range(6)))


def harmonised_pixels(folder: Path, work: Path, **values: Any) -> float:
    samples = find_samples(folder, patient_pattern=r"(p\d)")[:6]
    slices = [harmonise_slice(sample, MergeSettings(16, WIDE, **values)) for sample in samples]
    return float(sum(each.mask.sum() for each in slices if each.mask is not None))


def trusted_pixels(folder: Path, work: Path, **values: Any) -> float:
    labels = read_set(folder, ReadingSettings(16, WIDE, fit="pad", empty_labels=True, **values)).labels
    assert labels is not None
    return float(labels.sum()) / PATIENTS


MASK_PIXEL_READERS = [lesion_of_pairs, nodule_voxels, structure_pixels, harmonised_pixels, trusted_pixels]


@pytest.mark.parametrize("read", MASK_PIXEL_READERS)
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
        read(write_masked_set(tmp_path / "set", lesion(), affine), tmp_path)
    text = str(caught.value)
    assert "\n" not in text and "20 x 16 x 6" in text.replace("16 x 20", "20 x 16")


@pytest.mark.parametrize("read", MASK_PIXEL_READERS)
def test_every_reader_refuses_a_mask_of_another_size(read: Callable[..., float], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"p\d\.nii\.gz: does not fit .*: 5 slices instead of 6 \(it has "):
        read(write_masked_set(tmp_path / "set", lesion()[..., 1:]), tmp_path)


def flip_x(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same voxels in the same places, stored from the other side."""
    change = np.diag([-1.0, 1.0, 1.0, 1.0])
    change[0, 3] = SHAPE[0] - 1
    return array[::-1].copy(), AFFINE @ change


def swap_axes(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return array.transpose(2, 0, 1).copy(), AFFINE[:, [2, 0, 1, 3]]


@pytest.mark.parametrize("read", MASK_PIXEL_READERS)
def test_the_same_place_in_any_order_and_with_what_tools_lose_is_read_alike(
    read: Callable[..., float], tmp_path: Path
) -> None:
    expected = read(write_masked_set(tmp_path / "plain", lesion()), tmp_path / "plain")
    assert expected > 0
    small = AFFINE.copy()
    small[0, 3] += 2e-3
    same = [flip_x(lesion()), swap_axes(lesion()), (lesion(), small), (lesion(), turned(1e-5))]
    for number, (mask, affine) in enumerate(same):
        folder = tmp_path / str(number)
        assert read(write_masked_set(folder, mask, affine), folder) == expected


def test_flipped_and_permuted_masks_lie_where_they_did(tmp_path: Path) -> None:
    plain = [read_pair(s) for s in find_samples(write_masked_set(tmp_path / "a", lesion()))]
    for name, (mask, affine) in {"b": flip_x(lesion()), "c": swap_axes(lesion())}.items():
        other = [read_pair(s) for s in find_samples(write_masked_set(tmp_path / name, mask, affine))]
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


def pixels_of_masks_alone(folder: Path, work: Path, **values: Any) -> float:
    slices = MaskSlices(folder / "masks", square(16), **values)
    return float(slices.labels.sum()) / PATIENTS


@pytest.mark.parametrize("read", [*MASK_PIXEL_READERS, pixels_of_masks_alone])
def test_every_reader_takes_soft_masks_by_one_setting(read: Callable[..., float], tmp_path: Path) -> None:
    expected = read(write_masked_set(tmp_path / "hard", lesion()), tmp_path / "hard")
    for name, mask in (
        ("float labels", lesion() * np.float32(0.99998)),
        ("soft", soft()),
        ("ignored", np.where(soft() == np.float32(0.3), -1, lesion().astype(np.int16))),
        ("both", np.where(soft() == np.float32(0.3), 255, 0.9 * lesion()).astype(np.float32)),
    ):
        folder, work = write_masked_set(tmp_path / name, mask), tmp_path / name
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
    data = NoduleData(write_masked_set(tmp_path, mask), 16, window=WIDE, parts=(), ignore_value=255)
    scan = next(data.scans("train"))
    assert scan.has_excluded and scan.excluded_mask().sum() == 2 and scan.mask.sum() == 12
    assert not (scan.mask & scan.excluded_mask()).any() and len(scan.nodules) == 1
