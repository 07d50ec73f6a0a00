"""Made DICOM series."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid


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
) -> list[Path]:
    """A CT series of ``hu`` (column, row, slice): 0.5 x 0.7 mm (rows x columns), slices ``step`` mm apart.

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
        data.PixelSpacing, data.SliceThickness = [0.5, 0.7], step
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
