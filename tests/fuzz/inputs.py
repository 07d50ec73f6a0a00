"""Made sets as they come from the field: truths with known HU and places, writers, and what goes wrong.

A truth is a `Scan`; `FORMATS` write it in each file format, `LAYOUTS` name the files, and each of `DAMAGES`
arranges the set oddly or damages one patient's files.
"""

from __future__ import annotations

import gzip
import itertools
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import itk
import nibabel as nib
import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, RLELossless, generate_uid

SHAPE = (24, 20, 5)
"""Columns, rows and slices."""
SIZE = max(SHAPE)
LOWER, UPPER = -1100.0, 1100.0
"""HU window of all readers: nothing in the truths is clipped by it."""
AFFINE = np.array([[-0.8, 0, 0, 12], [0, -0.8, 0, 30], [0, 0, 2.5, -40], [0, 0, 0, 1.0]])
"""Columns to the patient's left, rows to the back, slices upwards; mm, RAS."""
PATIENTS = ("case03", "case11", "case24", "case57")
Rng = np.random.Generator


@dataclass(frozen=True)
class Scan:
    """HU (X, Y, Z) and labels 0..3 of one patient; each has its place: 4 x 4, voxel to mm (RAS)."""

    hu: np.ndarray
    label: np.ndarray
    affine: np.ndarray = field(default_factory=AFFINE.copy)
    label_affine: np.ndarray = field(default_factory=AFFINE.copy)


def chest(number: int) -> Scan:
    """A chest in air with unlike lungs, a heart at the left, a spine, and another grain at each voxel."""
    columns, rows, slices = SHAPE
    x, y = np.meshgrid(np.linspace(0, 1, columns), np.linspace(0, 1, rows), indexing="ij")
    rng = np.random.default_rng(number)
    hu = np.full(SHAPE, -1000.0)
    for z in range(slices):
        wide, high, right, left, heart = rng.uniform(
            (0.4, 0.36, 0.1, 0.08, 0.5), (0.48, 0.44, 0.2, 0.14, 0.7)
        )
        for cx, cy, rx, ry, value in (
            (0.5, 0.5, wide, high, 40),
            (0.28, 0.48, right, 1.7 * right, -850),
            (0.72, 0.44, left, 2 * left, -830),
            (heart, 0.42, 0.12, 0.1, 60),
            (0.5, 0.82, 0.07, 0.07, 700),
        ):
            hu[((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < 1, z] = value
    hu += np.kron(rng.uniform(-250, 250, (6, 5, slices)), np.ones((4, 4, 1))) * (hu > -500)
    hu += rng.integers(-9, 10, SHAPE) * np.where(hu > -900, 2.0, 0.5)
    label = np.zeros(SHAPE, np.uint8)
    for value in (1, 2, 3):
        start = 3 + 5 * value
        label[start : start + 4, 4 + value : 8 + 2 * value, 1 + value // 3 :] = value
    return Scan(np.rint(hu).astype(np.int16), label)


@dataclass
class Files:
    """A set on disk: the truths, and the files of each patient."""

    root: Path
    scans: dict[str, Scan]
    images: dict[str, list[Path]] = field(default_factory=dict)
    masks: dict[str, list[Path]] = field(default_factory=dict)

    def replaced(self, old: Path, new: Path) -> None:
        """Renames a file or folder, also in the lists."""
        new.parent.mkdir(parents=True, exist_ok=True)
        old.rename(new)
        for files in (*self.images.values(), *self.masks.values()):
            files[:] = [new if file == old else file for file in files]


def save_nifti(stem: Path, array: np.ndarray, affine: np.ndarray, rng: Rng, suffix: str = "") -> list[Path]:
    """NIfTI with any order and direction of its axes, any type, scaled or not."""
    axes, flips = rng.permutation(3), rng.random(3) < 0.5
    stored, turned = array, affine.copy()
    for axis in np.flatnonzero(flips):
        stored = np.flip(stored, axis)
        turned[:3, 3] += turned[:3, axis] * (array.shape[axis] - 1)
        turned[:3, axis] *= -1
    stored, turned[:, :3] = np.ascontiguousarray(stored.transpose(axes)), turned[:, :3][:, axes]
    image: Any = (nib.Nifti1Pair if suffix == ".img" else nib.Nifti1Image)(stored, turned)
    kind = rng.choice(["own", "float32", "int32", "scaled"]) if array.dtype.kind == "i" else "own"
    if kind == "scaled":
        image = type(image)((stored + 24) * np.int16(2), turned)
        image.header.set_slope_inter(0.5, -24.0)
    elif kind != "own":
        image = type(image)(stored.astype(kind), turned)
    if rng.random() < 0.3:
        image.set_sform(turned, 0) if rng.random() < 0.5 else image.set_qform(turned, 0)
        if image.header["sform_code"] == 0:
            image.set_qform(turned, 1)
    path = stem.with_name(stem.name + (suffix or str(rng.choice([".nii", ".nii.gz"]))))
    nib.save(image, path)
    return [path]


def save_itk(suffix: str) -> Callable[..., list[Path]]:
    """A writer of MHD, MHA or NRRD, compressed or not."""

    def save(stem: Path, array: np.ndarray, affine: np.ndarray, rng: Rng) -> list[Path]:
        lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
        spacing = np.linalg.norm(lps[:3, :3], axis=0)
        image = itk.image_from_array(np.ascontiguousarray(array.transpose(2, 1, 0)))
        image.SetSpacing(spacing.tolist())
        image.SetOrigin(lps[:3, 3].tolist())
        image.SetDirection(itk.matrix_from_array(lps[:3, :3] / spacing))
        path = stem.with_name(stem.name + suffix)
        itk.imwrite(image, str(path), compression=bool(rng.random() < 0.5))
        return [path]

    return save


def save_dicom(folder: Path, array: np.ndarray, affine: np.ndarray, rng: Rng, **options: Any) -> list[Path]:
    """A CT series: ``edit`` changes a slice's data set, ``inverted`` stores MONOCHROME1."""
    folder.mkdir(parents=True, exist_ok=True)
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    study, series, signed = generate_uid(), generate_uid(), bool(rng.random() < 0.5)
    slope = [1.0, 0.5] * SHAPE[2] if options.get("per_slice") else [float(rng.choice([1.0, 0.5]))] * 99
    name, order = str(rng.choice(["IM{:03d}.dcm", "{:05d}", "1.2.840.{}.dcm"])), rng.permutation(SHAPE[2])
    for z in range(array.shape[2]):
        data = pydicom.Dataset()
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = CTImageStorage
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        data.StudyInstanceUID, data.SeriesInstanceUID, data.Modality = study, series, "CT"
        data.PatientID, data.InstanceNumber, data.SeriesDate = folder.name, int(order[z]) + 1, "20200101"
        data.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        data.ImagePositionPatient = [float(value) for value in (lps @ [0, 0, z, 1])[:3]]
        data.ImageOrientationPatient = [float(v) for axis in (0, 1) for v in lps[:3, axis] / spacing[axis]]
        data.PixelSpacing, data.SliceThickness = [float(spacing[1]), float(spacing[0])], float(spacing[2])
        data.Rows, data.Columns, data.SamplesPerPixel = array.shape[1], array.shape[0], 1
        data.PhotometricInterpretation = "MONOCHROME1" if options.get("inverted") else "MONOCHROME2"
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, int(signed)
        data.RescaleSlope, data.RescaleIntercept = slope[z], -1024
        stored = np.rint((array[:, :, z].T + 1024.0) / slope[z])
        data.PixelData = stored.astype("<i2" if signed else "<u2").tobytes()
        if "edit" in options:
            options["edit"](data, z)
        if options.get("syntax"):
            data.compress(options["syntax"])
        data.save_as(folder / name.format(int(order[z])), enforce_file_format=True)
    return [folder]


def save_pictures(suffix: str) -> Callable[..., list[Path]]:
    """A writer of one 16-bit picture a slice (labels 8-bit), the window from black to white."""

    def save(stem: Path, array: np.ndarray, affine: np.ndarray, rng: Rng) -> list[Path]:
        gray = np.rint((array - LOWER) / (UPPER - LOWER) * 65535).astype(np.uint16)
        planes = array if array.dtype == np.uint8 else gray
        paths = [stem.with_name(f"{stem.name}_{z:03d}{suffix}") for z in range(array.shape[2])]
        for z, path in enumerate(paths):
            Image.fromarray(np.ascontiguousarray(planes[:, :, z].T)).save(path)
        return paths

    return save


def save_flat_nifti(stem: Path, array: np.ndarray, affine: np.ndarray, rng: Rng) -> list[Path]:
    """A 2-D NIfTI file a slice."""
    paths = [stem.with_name(f"{stem.name}_{z:03d}.nii.gz") for z in range(array.shape[2])]
    for z, path in enumerate(paths):
        nib.save(nib.Nifti1Image(array[:, :, z], affine), path)
    return paths


def save_arrays(stem: Path, array: np.ndarray, affine: np.ndarray, rng: Rng) -> list[Path]:
    """NumPy (slice, row, column)."""
    path = stem.with_name(stem.name + ".npy")
    np.save(path, array.transpose(2, 1, 0))
    return [path]


FORMATS: dict[str, Callable[..., list[Path]]] = {
    "nifti": save_nifti,
    "pair": lambda *given: save_nifti(*given, suffix=".img"),
    "flat": save_flat_nifti,
    "mhd": save_itk(".mhd"),
    "mha": save_itk(".mha"),
    "nrrd": save_itk(".nrrd"),
    "dicom": save_dicom,
    "png": save_pictures(".png"),
    "tiff": save_pictures(".tif"),
    "npy": save_arrays,
}
VOLUMES = ("nifti", "mhd", "mha", "nrrd")
# Where a patient's image and mask lie; images alone have no mask.
LAYOUTS = {
    "folders": ("images/{}", "masks/{}"),
    "labels": ("images/{}", "labels/{}"),
    "beside": ("{}", "{}_label"),
    "cases": ("{}/ct", "{}/label"),
    "flat": ("{}", ""),
    "patients": ("{0}/{0}", ""),
}


def write(root: Path, layout: str, kind: str, stored: dict[str, Scan], rng: Rng, **options: Any) -> Files:
    """Writes the scans; the masks of DICOM series are NIfTI files."""
    files, (image, mask) = Files(root, {}), LAYOUTS[layout]
    for name, scan in stored.items():
        place = root / image.format(name)
        place.parent.mkdir(parents=True, exist_ok=True)
        given = options if kind == "dicom" else {}
        files.images[name] = FORMATS[kind](place, scan.hu, scan.affine, rng, **given)
        if mask:
            place = root / mask.format(name)
            place.parent.mkdir(parents=True, exist_ok=True)
            save = save_nifti if kind == "dicom" else FORMATS[kind]
            files.masks[name] = save(place, scan.label, scan.label_affine, rng)
    return files


@dataclass(frozen=True)
class Damage:
    """What is done to a set.

    Attributes:
        stored: changes what is written of one patient; None where files are changed afterwards.
        files: changes the files of one patient.
        formats: where it can happen.
        fine: only odd: the set must be read, rightly and whole.
        blind: nobody can tell right from wrong values: only tracebacks and messages are looked at.
        doubt: wrong values are allowed after a warning.
        masked: needs masks.
        options: of `save_dicom`.
    """

    stored: Callable[[Scan, Rng], Scan] | None = None
    files: Callable[[Files, str, Rng], None] | None = None
    formats: Sequence[str] = tuple(FORMATS)
    fine: bool = False
    blind: bool = False
    doubt: bool = False
    masked: bool = False
    options: dict[str, Any] = field(default_factory=dict)


def in_hu(change: Callable[[np.ndarray, Rng], np.ndarray], **more: Any) -> Damage:
    """Of the gray values of one patient."""
    return Damage(lambda scan, rng: replace(scan, hu=change(scan.hu, rng)), **more)


def in_label(change: Callable[[np.ndarray, Rng], np.ndarray], **more: Any) -> Damage:
    """Of the labels of one patient."""
    return Damage(lambda scan, rng: replace(scan, label=change(scan.label, rng)), masked=True, **more)


def in_place(change: Callable[[np.ndarray, Rng], np.ndarray], both: bool = False, **more: Any) -> Damage:
    """Of the affine of one patient's mask, or of image and mask."""

    def moved(scan: Scan, rng: Rng) -> Scan:
        affine = change(scan.affine.copy(), rng)
        return replace(scan, label_affine=affine, **({"affine": affine} if both else {}))

    return Damage(moved, formats=more.pop("formats", VOLUMES), masked=not both, **more)


def in_bytes(change: Callable[[bytes, Rng], bytes], **more: Any) -> Damage:
    """Of the bytes of one of a patient's files, image or mask."""

    def changed(files: Files, victim: str, rng: Rng) -> None:
        paths = [*files.images[victim], *files.masks.get(victim, [])]
        parts = [part for path in paths for part in ([path] if path.is_file() else sorted(path.iterdir()))]
        if parts[0].suffix == ".mhd" and rng.random() < 0.7:
            parts = sorted(parts[0].parent.glob(f"{parts[0].stem}*raw"))
        path = parts[int(rng.integers(len(parts)))]
        path.write_bytes(change(path.read_bytes(), rng))

    return Damage(files=changed, **more)


def flipped(content: bytes, rng: Rng, first: float = 0.0, last: float = 1.0) -> bytes:
    """Three bytes changed, within a share of the file."""
    array = np.frombuffer(content, np.uint8).copy()
    places = rng.integers(int(first * array.size), max(1, int(last * array.size)), 3)
    array[places] ^= rng.integers(1, 256, 3).astype(np.uint8)
    return array.tobytes()


def renamed(name: Callable[[Path, str], str], **more: Any) -> Damage:
    """Other names of all files of one patient, masks alike."""

    def changed(files: Files, victim: str, rng: Rng) -> None:
        for old in [*files.images[victim], *files.masks.get(victim, [])]:
            files.replaced(old, old.with_name(name(old, victim)))

    return Damage(files=changed, **more)


def resaved(change: Callable[[np.ndarray], np.ndarray], **more: Any) -> Damage:
    """One patient's NIfTI image with an array of another shape or type."""

    def changed(files: Files, victim: str, rng: Rng) -> None:
        path = files.images[victim][0]
        image: Any = nib.load(path, mmap=False)
        nib.save(nib.Nifti1Image(change(np.asarray(image.dataobj)), image.affine), path)

    return Damage(files=changed, formats=("nifti",), **more)


def in_header(change: Callable[[Any], object], **more: Any) -> Damage:
    """One patient's NIfTI image with another header."""

    def changed(files: Files, victim: str, rng: Rng) -> None:
        path = files.images[victim][0]
        image: Any = nib.load(path, mmap=False)
        header = image.header.copy()
        change(header)
        header["sform_code"] = 1
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj), None, header), path)

    return Damage(files=changed, formats=("nifti",), **more)


def redrawn(change: Callable[[Image.Image], Image.Image], masks: bool = False, **more: Any) -> Damage:
    """One patient's pictures (or masks) in another mode."""

    def changed(files: Files, victim: str, rng: Rng) -> None:
        for path in (files.masks if masks else files.images)[victim]:
            picture = change(Image.open(path))
            picture.save(path)

    return Damage(files=changed, formats=("png", "tiff"), masked=masks, **more)


def added(*names: str, content: bytes = b"\0\1 nothing", fine: bool = True, **more: Any) -> Damage:
    """Files that are no images, in all folders of the set."""

    def changed(files: Files, victim: str, rng: Rng) -> None:
        places = {path if path.is_dir() else path.parent for each in files.images.values() for path in each}
        for place, name in itertools.product(sorted(places), names):
            file = place / name.format(victim)
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(content)

    return Damage(files=changed, fine=fine, **more)


def of_slices(change: Callable[[list[Path]], object], **more: Any) -> Damage:
    """Of the slice files of one series, in the order of their places."""

    def changed(files: Files, victim: str, rng: Rng) -> None:
        folder = files.images[victim][0]
        change(sorted(folder.iterdir(), key=lambda f: float(pydicom.dcmread(f).ImagePositionPatient[2])))

    return Damage(files=changed, formats=("dicom",), **more)


def edited(change: Callable[[Any, int], object], **more: Any) -> Damage:
    """Of the header of each slice of all series."""
    return Damage(formats=("dicom",), options={"edit": change}, **more)


def linked(files: Files, victim: str, rng: Rng) -> None:
    """The patient's files lie elsewhere, links in their place."""
    for number, path in enumerate([*files.images[victim], *files.masks.get(victim, [])]):
        parts = [path, *path.parent.glob(f"{path.stem}.*raw"), *path.parent.glob(f"{path.stem}.hdr")]
        for part in dict.fromkeys(parts):
            elsewhere = files.root.parent / f"elsewhere{number}" / part.name
            elsewhere.parent.mkdir(exist_ok=True)
            part.rename(elsewhere)
            part.symlink_to(elsewhere)


def linked_folder(files: Files, victim: str, rng: Rng) -> None:
    """The folder of the images lies elsewhere."""
    folder = files.images[victim][0].parent
    if folder == files.root:
        return linked(files, victim, rng)
    elsewhere = files.root.parent / "elsewhere"
    folder.rename(elsewhere)
    return folder.symlink_to(elsewhere)


def looped(files: Files, victim: str, rng: Rng) -> None:
    """A link to the folder above, and one to nothing."""
    folder = files.images[victim][0].parent
    (folder / "again").symlink_to(files.root)
    (folder / "gone.nii.gz").symlink_to(files.root / "nothing.nii.gz")


def half_masked(files: Files, victim: str, rng: Rng) -> None:
    """Masks of two of four patients alone."""
    for name in PATIENTS[::2]:
        for path in files.masks[name]:
            path.unlink()


def lonely_image(files: Files, victim: str, rng: Rng) -> None:
    """An image is gone, its mask is not."""
    for path in files.images[victim]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def nested(files: Files, victim: str, rng: Rng) -> None:
    """The series of a patient one level deeper, as STUDY/SERIES."""
    for folder in files.images.values():
        inner = folder[0] / "STUDY1" / "CT 5.0"
        inner.mkdir(parents=True)
        for file in [file for file in folder[0].iterdir() if file.is_file()]:
            file.rename(inner / file.name)


def second_series(files: Files, victim: str, rng: Rng) -> None:
    """Another patient's series in the folder too."""
    other = next(name for name in PATIENTS if name != victim)
    for file in files.images[other][0].iterdir():
        shutil.copy(file, files.images[victim][0] / f"b{file.name}")


def twice(files: Files, victim: str, rng: Rng) -> None:
    """A file lies there in a second format, or compressed and not."""
    path = files.images[victim][0]
    if path.name.endswith(".gz"):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
    else:
        shutil.copy(path, path.with_suffix(".png" if path.suffix != ".png" else ".tif"))


def pages(files: Files, victim: str, rng: Rng) -> None:
    """All slices of a patient in one TIFF."""
    for paths in (files.images[victim], files.masks.get(victim, [])):
        pictures = [Image.open(path).copy() for path in paths]
        if pictures:
            pictures[0].save(paths[0], save_all=True, append_images=pictures[1:])
            for path in paths[1:]:
                path.unlink()


def turned(affine: np.ndarray, degrees: float) -> np.ndarray:
    """About the patient's long axis."""
    angle = np.deg2rad(degrees)
    rotation = np.eye(4)
    rotation[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return np.asarray(rotation @ affine)


def moved(affine: np.ndarray, voxels: float) -> np.ndarray:
    """Shifted along the columns."""
    affine[0, 3] += 0.8 * voxels
    return affine


def upper_case(path: Path, patient: str) -> str:
    """CT.NII.GZ."""
    return patient.join(part.upper() for part in path.name.split(patient))


def with_value(array: np.ndarray, value: float) -> np.ndarray:
    """One voxel changed; float32 where it must be."""
    array = array.astype(np.float32) if not np.isfinite(value) or value != int(value) else array.copy()
    array[8, 6, 2] = value
    return array


def set_tag(**values: Any) -> Callable[[Any, int], None]:
    """Sets DICOM elements; None deletes one."""

    def edit(data: Any, z: int) -> None:
        for name, value in values.items():
            if value is None:
                delattr(data, name)
            else:
                setattr(data, name, value)

    return edit


def tilted(data: Any, z: int) -> None:
    """A gantry tilt: each slice is shifted within its plane."""
    data.ImagePositionPatient = [
        data.ImagePositionPatient[0],
        data.ImagePositionPatient[1] + 0.7 * z,
        z * 2.4,
    ]


def in_colour(data: Any, z: int) -> None:
    """RGB as screenshots are."""
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PlanarConfiguration = 3, "RGB", 0
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 8, 8, 7, 0
    data.PixelData = bytes(3 * data.Rows * data.Columns)


def with_scout(slices: list[Path]) -> None:
    """A scout from the side in the same series."""
    data = pydicom.dcmread(slices[0])
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    data.ImageType, data.ImageOrientationPatient = ["ORIGINAL", "PRIMARY", "LOCALIZER"], [0, 1, 0, 0, 0, -1]
    data.save_as(slices[0].with_name("scout.dcm"))


def overlaid(data: Any, z: int) -> None:
    """12 bits count; an overlay lies above them."""
    stored = np.frombuffer(data.PixelData, "<u2").astype(np.int64)
    data.RescaleIntercept, data.RescaleSlope, data.PixelRepresentation = -1024, 1, 0
    hu = stored.astype("<u2").view("<i2")
    data.BitsStored, data.HighBit = 12, 11
    data.PixelData = ((hu.astype(np.int64) & 4095) | (stored % 2 << 14)).astype("<u2").tobytes()


NIFTI, PICTURES, SERIES = ("nifti",), ("png", "tiff"), ("dicom",)
SHAPED = ("nifti", "mhd", "mha", "nrrd", "pair")
FLOATS = ("nifti", "mha", "npy")
DAMAGES: dict[str, Damage] = {
    "nothing": Damage(fine=True),
    # bytes
    "truncated": in_bytes(lambda content, rng: content[: int(rng.uniform(0.02, 0.98) * len(content))]),
    "short by a byte": in_bytes(lambda content, rng: content[:-1]),
    "empty file": in_bytes(lambda content, rng: b""),
    "zeros": in_bytes(
        lambda content, rng: bytes(len(content)), formats=("nifti", "png", "tiff", "mha", "dicom")
    ),
    "text": in_bytes(lambda content, rng: b"<html>404 Not Found</html>\n" * 9),
    "bytes flipped": in_bytes(flipped, blind=True),
    "header bytes flipped": in_bytes(lambda content, rng: flipped(content, rng, 0, 0.1), blind=True),
    "compressed bytes flipped": in_bytes(flipped, formats=("png",)),
    # names and folders
    "upper-case suffix": renamed(upper_case, formats=(*VOLUMES, *PICTURES), fine=True),
    "wrong suffix": renamed(
        lambda p, v: p.name + ".gz" if p.suffix != ".gz" else p.name[:-3], formats=(*VOLUMES, *PICTURES)
    ),
    "odd names": renamed(
        lambda p, v: p.name.replace(v, f"Müller #2 [a] & (b) {v}"),
        formats=("nifti", "mha", "dicom", *PICTURES),
        fine=True,
    ),
    "other odd names": renamed(
        lambda p, v: p.name.replace(v, f"-{v}%20a'; $x~"), formats=("nifti", "mha", "dicom", *PICTURES)
    ),
    "no suffix": renamed(lambda p, v: p.name.split(".")[0], formats=("nifti", "png")),
    "system files": added("Thumbs.db", ".DS_Store", "desktop.ini", "._{}.nii.gz", "README.txt"),
    "system folders": added("@eaDir/{}.png", "__MACOSX/._{}.nii.gz", ".git/{}.png"),
    "papers": added("DICOMDIR", "LICENSE", "report.xml", "notes.pdf", formats=SERIES),
    "broken splits.json": Damage(
        files=lambda files, victim, rng: (files.root / "splits.json").write_text("{"), blind=True
    ),
    "links": Damage(files=linked, fine=True),
    "linked folder": Damage(files=linked_folder, fine=True),
    "loops of links": Damage(files=looped),
    "half of the masks": Damage(files=half_masked, masked=True),
    "mask alone": Damage(files=lonely_image, masked=True),
    "two formats": Damage(files=twice, formats=("nifti", *PICTURES)),
    "folder named as a file": added("case99.nii.gz/notes.txt", fine=False),
    "nested series": Damage(files=nested, formats=SERIES, fine=True),
    # places
    "mask with identity affine": in_place(lambda a, rng: np.eye(4)),
    "identity affines": in_place(lambda a, rng: np.eye(4), both=True, blind=True),
    "mask moved by a voxel": in_place(lambda a, rng: moved(a, 1)),
    "mask moved by 0.002 voxels": in_place(lambda a, rng: moved(a, 0.002), fine=True),
    "mask mirrored": in_place(lambda a, rng: a @ np.diag([-1.0, 1, 1, 1])),
    "mask turned": in_place(lambda a, rng: turned(a, 12)),
    "both turned": in_place(lambda a, rng: turned(a, 12), both=True, fine=True),
    "mask of another size": Damage(
        lambda s, rng: replace(s, label=s.label[:-2]), formats=SHAPED, masked=True
    ),
    "mask with fewer slices": Damage(lambda s, rng: replace(s, label=s.label[..., :-1]), masked=True),
    "mask with more slices": Damage(
        lambda s, rng: replace(s, label=np.repeat(s.label, 2, -1)), formats=SHAPED, masked=True
    ),
    "axes swapped in the mask": Damage(
        lambda s, rng: replace(s, label=np.swapaxes(s.label, 0, 1)), masked=True
    ),
    "singular affine": in_header(lambda h: h["srow_y"].fill(0)),
    "affine of NaN": in_header(lambda h: h["srow_y"].fill(np.nan)),
    "giant affine": in_header(lambda h: [h[f"srow_{axis}"].__imul__(1e7) for axis in "xyz"], blind=True),
    "tiny affine": in_header(lambda h: [h[f"srow_{axis}"].__imul__(1e-3) for axis in "xyz"], blind=True),
    # values
    "HU + 1024": in_hu(
        lambda hu, rng: (hu + 1024).astype(rng.choice(["int16", "uint16"])),
        formats=("nifti", "mha", "npy"),
        doubt=True,
    ),
    "HU + 1000, floats": in_hu(lambda hu, rng: (hu + 1000).astype(np.float32), formats=FLOATS, doubt=True),
    "NaN": in_hu(lambda hu, rng: with_value(hu, np.nan), formats=FLOATS),
    "infinity": in_hu(lambda hu, rng: with_value(hu, -np.inf), formats=FLOATS),
    "constant": in_hu(lambda hu, rng: np.full_like(hu, -1000), formats=(*VOLUMES, "dicom", *PICTURES)),
    "0 to 1": in_hu(
        lambda hu, rng: ((hu - LOWER) / (UPPER - LOWER)).astype(np.float32), formats=FLOATS, fine=True
    ),
    "-1 to 1": in_hu(lambda hu, rng: (hu / 1100).astype(np.float32), formats=FLOATS, doubt=True),
    "padding of -2000": in_hu(
        lambda hu, rng: with_value(hu, -2000), formats=("nifti", "mha", "npy"), blind=True
    ),
    "12 of 16 bits": in_hu(lambda hu, rng: LOWER + (hu - LOWER) / 16, formats=PICTURES, doubt=True),
    "soft mask": in_label(
        lambda m, rng: (m > 0) * rng.uniform(0.3, 1, m.shape).astype(np.float32), formats=("nifti", "mha")
    ),
    "mask of 0.99998": in_label(lambda m, rng: m * np.float32(0.99998), formats=("nifti", "mha"), fine=True),
    "mask with -1": in_label(lambda m, rng: with_value(m.astype(np.int16), -1), formats=("nifti", "mha")),
    "mask with NaN": in_label(lambda m, rng: with_value(m, np.nan), formats=("nifti", "mha")),
    "empty mask": in_label(lambda m, rng: m * 0, blind=True),
    "CT as mask": Damage(lambda s, rng: replace(s, label=s.hu), formats=SHAPED, masked=True),
    # DICOM
    "slices missing": of_slices(lambda slices: slices[2].unlink()),
    "last slice missing": of_slices(lambda slices: slices[-1].unlink(), masked=True),
    "slices twice": of_slices(
        lambda slices: [shutil.copy(s, s.with_name(f"copy of {s.name}")) for s in slices], fine=True
    ),
    "a slice cut": of_slices(lambda slices: os.truncate(slices[2], slices[2].stat().st_size * 2 // 3)),
    "two series": Damage(files=second_series, formats=SERIES, masked=True),
    "MONOCHROME1": Damage(formats=SERIES, options={"inverted": True}, fine=True),
    "rescale of each slice": Damage(formats=SERIES, options={"per_slice": True}, fine=True),
    "RLE": Damage(formats=SERIES, options={"syntax": RLELossless}, fine=True),
    "overlay bits": edited(overlaid, blind=True),
    "scout": of_slices(with_scout, fine=True),
    "gantry tilt": edited(tilted),
    "series in colour": edited(in_colour),
    "no positions": edited(set_tag(ImagePositionPatient=None)),
    "no pixel size": edited(set_tag(PixelSpacing=None, SliceThickness=None), blind=True),
    "no rows": edited(set_tag(Rows=None)),
    "no pixels": edited(set_tag(PixelData=None)),
    "no rescale": edited(set_tag(RescaleSlope=None, RescaleIntercept=None), doubt=True),
    "rescale slope 0": edited(set_tag(RescaleSlope=0)),
    "thickness as text": edited(
        lambda data, z: setattr(data, "SliceThickness", ["2", "2.0"][z % 2]), fine=True
    ),
    "one PatientID": edited(set_tag(PatientID="ANON"), blind=True),
    # shapes
    "4-D of one": resaved(lambda a: a[..., None], fine=True),
    "4-D": resaved(lambda a: np.stack([a, a], -1)),
    "5-D": resaved(lambda a: a[..., None, None].repeat(3, -1)),
    "1-D": resaved(lambda a: a.ravel()),
    "no slices": resaved(lambda a: a[..., :0]),
    "NIfTI in colour": resaved(lambda a: np.zeros(a.shape, [("R", "u1"), ("G", "u1"), ("B", "u1")])),
    "complex": resaved(lambda a: a.astype(np.complex64)),
    # pictures
    "RGB": redrawn(
        lambda p: Image.merge(
            "RGB", [p.point(lambda v: v / 256).convert("L")] * 2 + [Image.new("L", p.size, 7)]
        )
    ),
    "transparent": redrawn(lambda p: Image.new("LA", p.size, (90, 10))),
    "a colour mask": redrawn(lambda p: Image.merge("RGB", [p, p.point(lambda v: v * 80), p]), masks=True),
    "bilinear mask": redrawn(lambda p: p.point(lambda v: v * 80).resize((48, 40)).resize(p.size), masks=True),
    "mask of another picture size": redrawn(lambda p: p.resize((40, 40), 0), masks=True),
    "pages in one TIFF": Damage(files=pages, formats=("tiff",)),
}
