"""Reads a folder of images into a set, the way a bundle's network sees them.

The folder may hold pictures, NumPy files, NIfTI or MHD volumes at any depth, one of the bundles' data set
layouts, a bank of slices or nodules, or tar shards.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from common.data.checks import for_each, read_pair
from common.data.intensity import to_network
from common.data.samples import Sample, with_hu_offset
from common.errors import UserError
from common.trust.arrays import array_files, array_slices
from common.trust.files import data_set, found, name_of, spread
from common.trust.loaded import Loaded, prepared, prepared_label, standardised
from common.trust.sets import ImageSet
from common.trust.settings import STRUCTURES, ReadingSettings
from common.trust.shards import shard_files, shard_slices
from common.trust.stored_slices import structure_names, structure_slices

__all__ = ["ReadingSettings", "read_set"]
LESION, NODULE = "lesion", "nodule"
LEAST = 2
"""Images; with fewer nothing can be said of a set."""


def read_set(
    folder: str | os.PathLike[str],
    settings: ReadingSettings,
    labels_folder: str | os.PathLike[str] | None = None,
    synthetic: bool = False,
) -> ImageSet:
    """All images of a folder.

    Args:
        settings: how, see `ReadingSettings.of`.
        labels_folder: conditions of equal names, where they are not in the folder itself.
        synthetic: generated images: each is a patient of its own, and they may look alike.
    Raises:
        UserError: no such folder, fewer than two images, a file that cannot be read, NaN.
    """
    place = Path(folder)
    if not place.is_dir():
        raise UserError(f"{place}: no such folder; give a folder with images")
    labels = None if labels_folder is None else Path(labels_folder)
    slices = _with_labels(_slices(place, labels, settings, synthetic), place, settings.slices)
    if len(slices) < LEAST:
        raise UserError(f"{place}: holds {len(slices)} image; at least {LEAST} are needed")
    looks = standardised(slices, settings.standardiser)
    return _joined(looks, str(place), _structures(settings), synthetic)


def _slices(folder: Path, labels: Path | None, settings: ReadingSettings, synthetic: bool) -> list[Loaded]:
    if shard_files(folder):
        return shard_slices(folder, settings)
    if array_files(folder):
        return array_slices(folder, settings)
    records = (
        found(folder, labels, settings) if synthetic or labels is not None else data_set(folder, settings)
    )
    records = with_hu_offset(records, settings.hu_offset)
    if settings.kind == STRUCTURES:
        with tempfile.TemporaryDirectory(prefix="slices-") as store:
            return structure_slices(records, folder, settings, Path(store))
    return _file_slices(spread(records, settings.slices), folder, settings)


def _file_slices(samples: Sequence[Sample], folder: Path, settings: ReadingSettings) -> list[Loaded]:
    def load(sample: Sample) -> Loaded:
        pixels, mask = read_pair(sample)
        label = None if mask is None else prepared_label(mask, settings)
        unit, name = prepared(pixels, settings), name_of(sample, folder)
        return Loaded(unit, label, name, sample.unit, sample.patient, pixels.is_hu)

    return for_each(samples, load, "reading")


def _with_labels(slices: list[Loaded], folder: Path, which: str) -> list[Loaded]:
    """Without those whose label is empty, unless all are wanted."""
    if which not in ("auto", "labelled") or any(loaded.label is None for loaded in slices):
        if which == "labelled":
            raise UserError(f"{folder}: has images without labels; take slices auto, or give their labels")
        return slices
    kept = [loaded for loaded in slices if loaded.label is not None and loaded.label.any()]
    if not kept:
        raise UserError(f"{folder}: all {len(slices)} labels are empty; give labels that show something")
    return kept


def _structures(settings: ReadingSettings) -> Sequence[str]:
    if settings.kind == STRUCTURES:
        return structure_names(settings)
    return (NODULE if "layer" in settings.info else LESION,)


def _joined(slices: Sequence[Loaded], folder: str, structures: Sequence[str], synthetic: bool) -> ImageSet:
    images = to_network(np.stack([loaded.unit for loaded in slices])[:, None])  # (N, 1, S, S)
    masks = [loaded.label for loaded in slices if loaded.label is not None]
    labels = np.stack(masks)[:, None].astype(np.float32) if len(masks) == len(slices) else None
    names = [loaded.name for loaded in slices]
    return ImageSet(
        torch.from_numpy(images),
        names if synthetic else _patients(slices),
        names,
        None if labels is None else torch.from_numpy(labels),
        () if labels is None else tuple(structures),
        folder,
        names if synthetic else [loaded.scan for loaded in slices],
    )


def _patients(slices: Sequence[Loaded]) -> list[str]:
    """Who is who, by the first of a person's scans: numbers of persons mean something in one folder only."""
    scans: dict[str, str] = {}
    for loaded in slices:
        scans[loaded.patient] = min(scans.get(loaded.patient, loaded.scan), loaded.scan)
    return [scans[loaded.patient] for loaded in slices]
