"""Made sets of which HU and places are known: `FORMATS` write a `Scan`, `LAYOUTS` name its files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import itk
import nibabel as nib
import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

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
