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
