"""Who is the same person: patients of several sets, and slices whose names tell no patient."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from common.data.duplicates import SAME_SLICE_CORRELATION, scan_groups
from common.data.patients import is_single_slice, whose
from common.data.samples import Sample
from common.data.volume_files import is_volume

logger = logging.getLogger(__name__)
ROWS_AT_ONCE = 1024
LEAST_SLICES = 8
"""With fewer nothing is said of a set's names."""
MANY = 0.5
"""Share of slices that would be patients of their own, from which on they are looked at."""
SPLITS_FILE = "splits.json"

S = TypeVar("S", bound=Sample)


def keep_scans_together(records: Sequence[S], folder: Path, pattern: str | None = None) -> list[S]:
    """The records with `Sample.person` set where most slices would be patients of their own.

    Slices whose names tell no patient (``0012.png``, ``IMG0012.png``) lie in the order of their scans, so
    those that `common.data.duplicates.scan_groups` finds alike are taken for one person's. One line warns of
    it and names three examples. A folder with a ``splits.json`` of its own is left alone.

    Args:
        records: one a file, of slices or volumes.
        folder: the data set's.
        pattern: what their patients were told by, see `common.data.patients.whose`.
    Raises:
        UserError: a slice is unreadable.
    """
    slices = [record for record in records if not is_volume(record.image) or is_single_slice(record.image)]
    times = Counter(record.patient for record in slices)
    alone = {
        record.image
        for record in slices
        if times[record.patient] == 1 and not record.person and not whose(record.image, pattern).told
    }
    few = len(slices) < LEAST_SLICES or len(alone) < MANY * len(slices)
    if few or (folder / SPLITS_FILE).is_file():
        return list(records)
    ordered = sorted((record for record in slices if record.image in alone), key=_natural)
    groups = scan_groups(ordered)
    first: dict[int, str] = {}
    persons = {r.image: first.setdefault(group, r.patient) for r, group in zip(ordered, groups, strict=True)}
    shown = [ordered[len(ordered) * place // 3] for place in range(3)]
    logger.warning(
        "%s: most slices would be patients of their own (%s); neighbours that look alike are kept "
        "together, %d slices as %d patients; say whose they are with --patient_pattern or splits.json",
        folder,
        ", ".join(f"{record.image.name} -> {record.patient}" for record in shown),
        len(ordered),
        len(first),
    )
    return [replace(r, person=persons[r.image]) if r.image in persons else r for r in records]


def _natural(record: Sample) -> list[tuple[int, str]]:
    """Sorts 9 before 10."""
    parts = re.findall(r"\d+|\D+", record.image.as_posix())
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


def join_persons(samples: Sequence[Sample], sets: Sequence[str], thumbnails: np.ndarray) -> list[Sample]:
    """The samples with `Sample.person` set where patients of different sets show the same slice.

    Args:
        samples: slices of all sets.
        sets: the set of each sample; slices of one set are never compared (their patient ids are known).
        thumbnails: (N, T * T), see `common.data.thumbnails`.
    """
    patients = sorted({sample.patient for sample in samples})
    position = {patient: index for index, patient in enumerate(patients)}
    patient_of = np.array([position[sample.patient] for sample in samples])
    pairs = _alike(np.unique(sets, return_inverse=True)[1], thumbnails)  # (2, M)
    first, second = patient_of[pairs]
    graph = coo_array((np.ones(len(first), bool), (first, second)), shape=(len(patients),) * 2)
    groups = connected_components(graph, directed=False)[1]
    # Each group is named after its first patient.
    names = {int(group): patients[index] for index, group in reversed(list(enumerate(groups)))}
    return [replace(sample, person=names[int(groups[position[sample.patient]])]) for sample in samples]


def _alike(sets: np.ndarray, thumbnails: np.ndarray) -> np.ndarray:
    """Index pairs (2, M) of slices from different sets that show the same."""
    found = [np.empty((2, 0), dtype=np.int64)]
    for start in range(0, len(thumbnails), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        alike = (thumbnails[rows] @ thumbnails.T >= SAME_SLICE_CORRELATION) & (sets[rows, None] != sets)
        here, there = np.nonzero(alike)
        found.append(np.stack([here + start, there]))
    return np.concatenate(found, axis=1)
