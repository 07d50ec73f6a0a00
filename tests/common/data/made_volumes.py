"""Small made volumes and pictures: DICOM series, scans with nodules, and sources of the slice cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import itk
import nibabel as nib
import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from common.data.slice_geometry import Intensity, Request


def write_series(folder: Path, patient: str, slices: int = 2, seed: int = 0) -> Path:
    """Slices of 4 x 5 pixels, 2.5 mm apart, of one series; ``patient`` is the header's ``PatientID``."""
    random = np.random.default_rng(seed)
    hu = random.integers(0, 2000, (5, 4, slices)).astype(np.int16) - 1024

    def name_patient(data: Any, index: int) -> None:
        data.PatientID = patient

    write_ct(folder, hu, step=2.5, name=f"{folder.name}_{{:03d}}.dcm", edit=name_patient)
    return folder


def ct_stack(depth: int = 6, rows: int = 10, columns: int = 12) -> np.ndarray:
    """HU (column, row, slice), int16: every voxel different, so that a flip, a swap or a lost slice shows."""
    voxels = np.arange(columns * rows * depth).reshape(depth, rows, columns)
    return (voxels.transpose(2, 1, 0) * 3 % 2500 - 1000).astype(np.int16)


def write_ct(
    folder: Path,
    hu: np.ndarray,
    *,
    rescale: Sequence[tuple[float, float]] = ((1.0, -1024.0),),
    positions: Sequence[Sequence[float]] | None = None,
    orientation: Sequence[float] = (1, 0, 0, 0, 1, 0),
    step: float = 2.0,
    photometric: str = "MONOCHROME2",
    signed: bool = False,
    series: str = "",
    name: str = "IM{:04d}.dcm",
    syntax: str | None = None,
    edit: Callable[[Any, int], None] | None = None,
    pixel: Sequence[float] = (0.5, 0.7),
) -> list[Path]:
    """A CT series of ``hu`` (column, row, slice): pixels of ``pixel`` mm (rows x columns), ``step`` mm apart.

    Args:
        rescale: slope and intercept, one for all slices or one a slice.
        edit: changes the dataset of a slice before it is written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    series, study = series or generate_uid(), generate_uid()
    files = []
    for index in range(hu.shape[2]):
        slope, intercept = rescale[index % len(rescale)]
        stored = np.rint((hu[:, :, index].T.astype(np.float64) - intercept) / slope)
        data = pydicom.Dataset()
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = CTImageStorage
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        data.StudyInstanceUID, data.SeriesInstanceUID, data.Modality = study, series, "CT"
        data.PatientID, data.SeriesDate, data.InstanceNumber = "P1", "20200101", index + 1
        data.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        place = positions[index] if positions is not None else (-20.0, -15.0, 10.0 + step * index)
        data.ImagePositionPatient = [float(value) for value in place]
        data.ImageOrientationPatient = list(orientation)
        data.PixelSpacing, data.SliceThickness = list(pixel), step
        data.Rows, data.Columns, data.SamplesPerPixel = *stored.shape, 1
        data.PhotometricInterpretation = photometric
        data.BitsAllocated, data.BitsStored, data.HighBit = 16, 16, 15
        data.PixelRepresentation = int(signed)
        data.RescaleSlope, data.RescaleIntercept = slope, intercept
        data.PixelData = stored.astype("<i2" if signed else "<u2").tobytes()
        if edit is not None:
            edit(data, index)
        if syntax is not None:
            data.compress(syntax)
        file = folder / name.format(index)
        data.save_as(file, enforce_file_format=True)
        files.append(file)
    return files


def write_dicom(folder: Path, hu: np.ndarray) -> None:
    """A series of ``hu`` (column, row, slice): 0.7 x 0.7 x 2.5 mm from (0, 0, 0) on."""
    places = [(0.0, 0.0, 2.5 * index) for index in range(hu.shape[2])]
    write_ct(folder, hu, positions=places, step=2.5, pixel=(0.7, 0.7), name="{:03d}.dcm")


HEADER = "seriesuid,coordX,coordY,coordZ,diameter_mm\n"


def write_mhd(path: Path, voxels: np.ndarray, flipped: bool = False) -> None:
    """A MetaImage of int16 (Z, Y, X), 2 x 1.5 x 1 mm, at (10, 20, 30) mm LPS; ``flipped`` lies prone."""
    image = itk.image_from_array(np.ascontiguousarray(voxels))
    image.SetSpacing([1, 1.5, 2])
    image.SetOrigin([10, 20, 30])
    if flipped:
        image.SetDirection(itk.matrix_from_array(np.diag([-1.0, -1.0, 1.0])))
    itk.imwrite(image, str(path))


def write_luna(folder: Path, lines: str, series: str = "1.2", flipped: bool = False) -> Path:
    """A folder with one LUNA16 scan of 8 x 10 x 12 voxels and these lines of annotations."""
    voxels = np.full((8, 10, 12), -800, np.int16)
    voxels[3, 4, 5] = 40
    folder.mkdir(parents=True, exist_ok=True)
    write_mhd(folder / f"{series}.mhd", voxels, flipped)
    (folder / "annotations.csv").write_text(HEADER + lines)
    return folder


def write_picture(folder: Path, name: str, image: np.ndarray, mask: np.ndarray) -> None:
    """An 8-bit picture and its mask {0, 255}."""
    for part, pixels in (("images", image), ("masks", mask * 255)):
        (folder / part).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / part / f"{name}.png")


def write_volume(folder: Path, name: str, hu: np.ndarray, mask: np.ndarray, masks: str = "masks") -> None:
    """A NIfTI volume (X, Y, Z) to the left, back and head, 1 x 1 x 2 mm, and its mask."""
    affine = np.diag([-1.0, -1.0, 2.0, 1.0])
    for part, voxels in (("images", hu.astype(np.int16)), (masks, mask.astype(np.uint8))):
        (folder / part).mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(voxels, affine), folder / part / f"{name}.nii.gz")


def write_meta_image(path: Path, array: np.ndarray, compression: bool = False) -> None:
    """MHD or MHA of ``array`` (X, Y, Z) with voxels of 1 mm."""
    itk.imwrite(itk.image_from_array(np.ascontiguousarray(array.T)), str(path), compression=compression)


# mm along x (the columns), y (the rows) and z (the slices), and voxels along them: all different.
SPACING, EXTENT = (0.5, 0.75, 2.0), (12, 10, 8)
WINDOW = Intensity("window", -1000, 1000)


def hounsfield(seed: int = 0, extent: tuple[int, int, int] = EXTENT) -> np.ndarray:
    """int16 (X, Y, Z) within -1000..1000: a ramp along each axis with its own slope, and noise."""
    x, y, z = np.indices(extent)
    noise = np.random.default_rng(seed).integers(-20, 20, extent)
    return (40 * x - 15 * y + 70 * z + noise - 300).astype(np.int16)


def labels(extent: tuple[int, int, int] = EXTENT) -> np.ndarray:
    """uint16 (X, Y, Z): 420 in a box off the centre, 600 in a smaller one beside it."""
    array = np.zeros(extent, np.uint16)
    array[2:9, 1:6, 1:5] = 420
    array[3:5, 6:9, 2:7] = 600
    return array


def save(path: Path, array: np.ndarray, spacing: tuple[float, ...] = SPACING) -> Path:
    """NIfTI whose axes run to the patient's left, back and head: display order is its (Y, X, Z)."""
    affine = np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def image(path: Path, intensity: Intensity = WINDOW) -> Request:
    """The request of an image."""
    return Request(path, "image", intensity)


def label(path: Path) -> Request:
    """The request of a label file."""
    return Request(path, "label")


HEART_SIDE, HEART_DEPTH = 16, 5
# Axes L, P, S with anisotropic voxels: the array is (W, H, D) in display order, nothing flipped.
HEART_AFFINE = np.diag([-1.5, -1.5, 4.0, 1.0])


def save_volume(path: Path, array: np.ndarray, affine: np.ndarray = HEART_AFFINE) -> Path:
    """Writes a NIfTI volume; makes the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def heart_label(patient: int) -> np.ndarray:
    """uint8 (W, H, D): seven blocks, asymmetric; the last slice is empty and the first has two structures."""
    label = np.zeros((HEART_SIDE, HEART_SIDE, HEART_DEPTH), np.uint8)
    for value in range(1, 8):
        first = 1 if value > 2 else 0
        label[2 * value : 2 * value + 2, value : value + 3 + patient, first : HEART_DEPTH - 1] = value
    return label


def heart_image(label: np.ndarray) -> np.ndarray:
    """HU that tell the label 0..7: air outside, then from 0 HU in steps of 80."""
    return np.where(label > 0, 80 * (label.astype(np.int16) - 1), -1000).astype(np.int16)
