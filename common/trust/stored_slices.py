"""Images with label maps of structures, cut and scaled by the slice store as in their model's training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from common.data.samples import Sample
from common.data.store.reading import SliceReader
from common.data.store.request import Request
from common.data.store.store import SliceStore
from common.data.store.volume import StoredVolume
from common.data.stored_pairs import stored_pair
from common.data.structures import LabelSet
from common.data.volumes import is_volume
from common.inference.labels import geometry_of, intensity_of, label_set_of
from common.trust.files import name_of
from common.trust.loaded import Loaded
from common.trust.settings import ReadingSettings


def structure_names(settings: ReadingSettings) -> Sequence[str]:
    """The model's structures; none where its condition is an image."""
    labels = label_set_of(settings.info)
    return () if labels is None else labels.classes


def structure_slices(
    records: Sequence[Sample], folder: Path, settings: ReadingSettings, store: Path
) -> list[Loaded]:
    """The slices of volumes or pictures, with the classes of their label maps where they have any.

    Args:
        records: one a file, ``index`` None.
        store: an empty folder for what is converted.
    Raises:
        UserError: a bad file, a label on another grid, or with values that mean nothing to the model.
    """
    label_set, intensity = label_set_of(settings.info), intensity_of(settings.info)
    masked = label_set is not None and all(record.mask is not None for record in records)
    images = [
        Request(record.image, "image", intensity, record.orientation, record.hu_offset) for record in records
    ]
    labels = [
        Request(record.mask, "label", None, record.orientation)
        for record in records
        if masked and record.mask is not None
    ]
    stored = SliceStore(store, geometry_of(settings.info)).convert([*images, *labels])
    partners: Sequence[StoredVolume | None] = stored[len(records) :] or [None] * len(records)
    joined = zip(records, stored, partners, strict=False)
    return [
        loaded
        for record, image, label in joined
        for loaded in _of_file(record, image, label, label_set, folder, settings.slices)
    ]


def _of_file(
    record: Sample,
    image: StoredVolume,
    label: StoredVolume | None,
    label_set: LabelSet | None,
    folder: Path,
    which: str,
) -> Iterator[Loaded]:
    table = None if label is None else stored_pair(record, image, label, label_set).table
    reader = SliceReader()
    for index in [image.depth // 2] if which == "central" else range(image.depth):
        name = name_of(record, folder) + (f"#{index:03d}" if is_volume(record.image) else "")
        classes: np.ndarray | None = (
            None if label is None or table is None else table[reader.label(label, index)]
        )
        yield Loaded(reader.image(image, index), classes, name, record.unit, record.patient, image.is_hu)
