"""Folders of small made images for the tests."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image

SIDE = 32


def textures(count: int, seed: int, size: int = SIDE) -> np.ndarray:
    """Smooth random pictures, all different: (count, size, size) uint8."""
    numbers = np.random.default_rng(seed)
    spectrum = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    white = np.fft.rfft2(numbers.normal(size=(count, size, size)))
    fields = np.fft.irfft2(white * np.exp(-((spectrum / 0.12) ** 2)), s=(size, size))
    fields /= np.abs(fields).max((1, 2), keepdims=True)
    return np.rint(127.5 + 127.5 * fields).astype(np.uint8)


def pictures(folder: Path, count: int, seed: int, name: str = "case{0}_000") -> Path:
    """PNGs of `textures`."""
    folder.mkdir(parents=True, exist_ok=True)
    for place, texture in enumerate(textures(count, seed)):
        Image.fromarray(texture).save(folder / f"{name.format(place)}.png")
    return folder


def volume(path: Path, array: np.ndarray) -> Path:
    """A NIfTI file of (H, W, D) in display order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array.transpose(1, 0, 2), np.diag([-1.0, -1.0, 1.0, 1.0])), path)
    return path


def shard(path: Path, samples: Mapping[str, Mapping[str, np.ndarray | dict]]) -> Path:
    """A tar file of samples: arrays as ``.npy``, dicts as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for key, files in samples.items():
            for suffix, content in files.items():
                _add(tar, f"{key}.{suffix}", content)
    return path


def _add(tar: tarfile.TarFile, name: str, content: np.ndarray | dict) -> None:
    file = io.BytesIO()
    if isinstance(content, dict):
        file.write(json.dumps(content).encode())
    else:
        np.save(file, content)
    member = tarfile.TarInfo(name)
    member.size = file.tell()
    file.seek(0)
    tar.addfile(member, file)


def dicom_series(folder: Path, slices: int, seed: int = 0, name: str = "IM") -> Path:
    """A CT series of `textures` in HU -1000..255, 2 mm apart, all its files in ``folder``."""
    from pydicom import FileDataset
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    folder.mkdir(parents=True, exist_ok=True)
    study, series = generate_uid(), generate_uid()
    for number, texture in enumerate(textures(slices, seed)):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        file = folder / f"{name}-{number}.dcm"
        data = FileDataset(str(file), {}, file_meta=meta, preamble=b"\0" * 128)
        data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        data.StudyInstanceUID, data.SeriesInstanceUID, data.Modality = study, series, "CT"
        data.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        data.ImagePositionPatient = [0.0, 0.0, 2.0 * number]
        data.SliceThickness, data.PixelSpacing, data.InstanceNumber = 2.0, [0.7, 0.7], number + 1
        data.Rows, data.Columns = texture.shape
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
        data.RescaleSlope, data.RescaleIntercept = 5, -1000
        data.PixelData = texture.astype(np.int16).tobytes()
        data.save_as(file, enforce_file_format=True)
    return folder
