"""Normal slices from another folder, for data sets that are cut out around nodules and have none."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bundles.lung_two_stage.extraction.patients import Parts, parts_of
from common.data.image_layouts import find_images
from common.data.intensity import Window, to_hu, to_unit
from common.data.nodule_layouts import ANNOTATIONS, NoduleSample, find_nodule_scans
from common.data.nodule_scan import NoduleScan, read_nodule_scan
from common.data.reading import Pixels, read_pixels
from common.data.samples import Sample
from common.data.split_data import split_samples
from common.data.volumes import is_volume, open_volume

FIELD_MM = 340.0
"""Width of what a picture shows, where nothing says its scale: a chest with little around it."""


def find_normals(
    folder: str | os.PathLike[str],
    fractions: Sequence[float],
    split_seed: int,
    share: float,
    seed: int,
    hu_offset: float | None = None,
    patient_pattern: str | None = None,
) -> Parts[Sample]:
    """The scans and pictures of a folder by purpose, split by patient as the data set itself is.

    LUNA16's layout gives the slices that ``annotations.csv`` knows no nodule in; all others are taken for
    free of nodules. With fewer than four patients everything is for the generation.

    Raises:
        UserError: a bad folder.
    """
    place = Path(folder)
    found: list[Sample]
    if (place / ANNOTATIONS).is_file():
        found = list(find_nodule_scans(place, unannotated="normal", hu_offset=hu_offset))
    else:
        found = _whole(find_images(place, patient_pattern=patient_pattern, hu_offset=hu_offset).samples)
    if len({sample.unit for sample in found}) < 4:
        return Parts(found, [], [])
    split = split_samples(place, found, fractions, split_seed)
    return parts_of(split["train"], split["test"], share, seed)


def read_normals(samples: Sequence[Sample], window: Window) -> Iterator[NoduleScan]:
    """The scans, read one after the other; those of `find_images` have empty masks.

    Args:
        window: whose ends are black and white of files that are not HU.
    Raises:
        UserError: unreadable.
    """
    for sample in samples:
        if isinstance(sample, NoduleSample):
            yield read_nodule_scan(sample, window)
        else:
            yield _read(sample, window)


def _whole(samples: Sequence[Sample]) -> list[Sample]:
    """One sample for each file: `find_images` lists the slices of volumes."""
    return list({sample.image: sample for sample in samples}.values())


def _read(sample: Sample, window: Window) -> NoduleScan:
    if not is_volume(sample.image):
        pixels = read_pixels(sample)
        spacing = (FIELD_MM / pixels.values.shape[1],) * 3
        return _plain(sample.name, sample, _hu(pixels, window)[None], spacing, pixels.is_hu)
    volume = open_volume(sample.image)
    values, offset = np.moveaxis(volume.array, 2, 0), volume.offset(sample.hu_offset, sample.image)
    pixels = Pixels(values + np.float32(offset) if offset else values, volume.is_hu, volume.source_range)
    name = replace(sample, index=None).name
    rows, columns, slices = volume.spacing
    return _plain(name, sample, _hu(pixels, window), (slices, rows, columns), pixels.is_hu)


def _plain(
    name: str, sample: Sample, hu: NDArray[np.int16], spacing: tuple[float, float, float], is_hu: bool
) -> NoduleScan:
    """A scan without nodules."""
    return NoduleScan(hu, np.zeros(hu.shape, np.uint8), spacing, name, sample.patient, (), (), not is_hu)


def _hu(pixels: Pixels, window: Window) -> NDArray[np.int16]:
    if pixels.is_hu:
        return np.clip(np.rint(pixels.values), -(2**15), 2**15 - 1).astype(np.int16)
    return to_hu(to_unit(pixels.values, window, False, pixels.source_range), window)
