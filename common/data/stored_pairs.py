"""An image in the slice store with its label: on one grid, and which of its slices are used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform

from common.data.samples import Sample
from common.data.store.volume import StoredVolume
from common.data.structures import LabelSet
from common.data.volumes import DISPLAY_AXES, is_volume
from common.errors import UserError

# Tools write affines in single precision; entries of one grid differ by less than this (mm).
AFFINE_TOLERANCE = 1e-3
SHOWN = 5
"""So many patients are named in an error."""


class StoredPair(NamedTuple):
    """A converted image and what it is conditioned on.

    Args:
        sample: the files; ``index`` None.
        image, label: both converted; ``label`` is an image too where the condition is one.
        table: uint8, the class of each of the label's codes; None where the condition is an image.
    """

    sample: Sample
    image: StoredVolume
    label: StoredVolume
    table: np.ndarray | None

    @property
    def is_volume(self) -> bool:
        """Whether its slices are numbered; a picture is one slice without a number."""
        return is_volume(self.sample.image)


def stored_pair(
    sample: Sample, image: StoredVolume, label: StoredVolume, label_set: LabelSet | None
) -> StoredPair:
    """Joins what the store made of a sample's two files.

    Raises:
        UserError: the two differ in shape or affine, or the label has values that ``label_set`` refuses.
    """
    check_same_grid(image, label)
    table = None if label_set is None else label_set.table(label.values, label.source)
    return StoredPair(sample, image, label, table)


def check_same_grid(image: StoredVolume, label: StoredVolume) -> None:
    """Refuses two files whose voxels are not at the same places; the order of their axes may differ.

    Raises:
        UserError: names both files.
    """
    if image.shape != label.shape:
        raise UserError(
            f"{label.source}: is {_size(label.shape)} voxels but {image.source} is {_size(image.shape)} "
            "(rows x columns x slices); resample one to the other"
        )
    difference = np.abs(display_affine(image) - display_affine(label)).max()
    if difference > AFFINE_TOLERANCE:
        raise UserError(
            f"{label.source}: its affine differs from that of {image.source} (by up to {difference:.4g} mm); "
            "resample one to the other, or copy the header if only that is wrong"
        )


def display_affine(volume: StoredVolume) -> np.ndarray:
    """4 x 4: voxels (H, W, D) in display order to world mm."""
    affine = np.array(volume.affine)
    there = ornt_transform(io_orientation(affine), axcodes2ornt(DISPLAY_AXES))
    file_shape = [volume.shape[int(axis)] for axis in there[:, 0]]
    return affine @ inv_ornt_aff(there, file_shape)


def selected_slices(
    pairs: Sequence[StoredPair], min_pixels: int, every: int, classes: Sequence[str]
) -> np.ndarray:
    """The slices in use, int32 (N, 2): number of the pair, slice along the cut axis.

    Args:
        pairs: what to choose from.
        min_pixels: keep slices with at least that many pixels of the classes, at the stored size; 0 for all.
        every: keep every n-th slice of each volume, counted from its first.
        classes: their names, for the error.
    Raises:
        UserError: nothing is left; says which filter took the slices.
    """
    if every < 1 or min_pixels < 0:
        raise UserError(f"every {every} must be at least 1 and min_pixels {min_pixels} at least 0")
    total, thinned, kept = 0, 0, []
    for number, pair in enumerate(pairs):
        slices = np.arange(0, pair.image.depth, every, dtype=np.int32)
        total, thinned = total + pair.image.depth, thinned + len(slices)
        slices = slices[_foreground(pair)[slices] >= min_pixels]
        kept.append(np.stack([np.full_like(slices, number), slices], axis=1))
    if not any(len(slices) for slices in kept):
        named = ", ".join(classes) or "a class"
        raise UserError(
            f"{_where(pairs)}: no slices left of {total} ({_patients(pairs)}): {thinned} after "
            f"every={every}, none of them with min_pixels={min_pixels} pixels of {named}; lower min_pixels "
            "or choose other --labels"
        )
    return np.concatenate(kept)


def _foreground(pair: StoredPair) -> np.ndarray:
    """Pixels of any class in each slice (N,); without classes nothing counts as too few."""
    if pair.table is None:
        return np.full(pair.image.depth, np.iinfo(np.int64).max)
    return np.asarray(pair.label.counts)[:, pair.table > 0].sum(axis=1, dtype=np.int64)


def _where(pairs: Sequence[StoredPair]) -> str:
    return str(pairs[0].sample.image.parent) if pairs else "the data set"


def _patients(pairs: Sequence[StoredPair]) -> str:
    names = sorted({pair.sample.patient for pair in pairs})
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(str(extent) for extent in shape)
