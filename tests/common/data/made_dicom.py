"""Made DICOM series."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid


def write_series(folder: Path, patient: str, slices: int = 2, seed: int = 0) -> Path:
    """Slices of 4 x 5 pixels, 2.5 mm apart, of one series; ``patient`` is the header's ``PatientID``."""
    folder.mkdir(parents=True, exist_ok=True)
    study, series = generate_uid(), generate_uid()
    random = np.random.default_rng(seed)
    for index in range(slices):
        data = pydicom.Dataset()
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = CTImageStorage
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        data.StudyInstanceUID, data.SeriesInstanceUID, data.Modality = study, series, "CT"
        data.PatientID, data.SeriesDate, data.InstanceNumber = patient, "20200101", index + 1
        data.ImagePositionPatient, data.ImageOrientationPatient = [0, 0, 2.5 * index], [1, 0, 0, 0, 1, 0]
        data.PixelSpacing, data.SliceThickness = [0.7, 0.7], 2.5
        data.Rows, data.Columns, data.SamplesPerPixel = 4, 5, 1
        data.PhotometricInterpretation = "MONOCHROME2"
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 0
        data.RescaleIntercept, data.RescaleSlope = -1024, 1
        data.PixelData = random.integers(0, 2000, (4, 5)).astype("<u2").tobytes()
        data.save_as(folder / f"{folder.name}_{index:03d}.dcm", enforce_file_format=True)
    return folder
