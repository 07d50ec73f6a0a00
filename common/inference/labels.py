"""Label maps of structures as slices for a trained generator, cut as in its training."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from common.data.intensity import to_network
from common.data.noise import noise_place
from common.data.samples import stem
from common.data.store.reading import SliceReader
from common.data.store.request import Geometry, Intensity, Request
from common.data.store.store import SliceStore
from common.data.store.volume import StoredVolume
from common.data.stored_pairs import check_same_grid
from common.data.structures import LabelMap, LabelSet
from common.data.volumes import is_volume
from common.inference.sources import Source

logger = logging.getLogger(__name__)
DEFAULT_SIZE = 128
DEFAULT_MAP = "default"


@dataclass(frozen=True)
class Converted:
    """A source in the slice store.

    Attributes:
        condition: its label map, or image.
        table: uint8, the class of each of the label's codes; None where the condition is an image.
        real: the real image, where there is one.
    """

    condition: StoredVolume
    table: np.ndarray | None
    real: StoredVolume | None

    @property
    def path(self) -> Path:
        """The condition's file."""
        return self.condition.source


class LabelSlices(Dataset[dict[str, Any]]):
    """One item a slice: ``label`` float32 (1, S, S) and its place ``sample``.

    ``label`` holds class indices 0..K, or [-1, 1] where the model's condition is an image. Files go through
    the slice store that training takes them from, with the geometry that the model learned: what the network
    sees cannot differ. All files are read and checked here, before anything is generated; in memory stays
    nothing of them.

    Args:
        sources: the files.
        info: what stands beside the model (`common.inference.models.model_info`).
        label_map: what the files' values mean, see `LabelSet`; None for the map that the model was trained
            with, ``default`` for `LabelSet`'s own.
        store_dir: where converted slices are kept; None for a temporary folder.
        hu_offset: of images that are no HU, see `common.data.intensity.offset_to_hu`.

    Attributes:
        classes: the model's structures; () where the condition is an image.
        converted: the sources, in order.
        files: each file's positions.
    Raises:
        UserError: a file that cannot be read, is no label map, or has values that mean nothing to the model.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        info: Mapping[str, Any],
        label_map: LabelMap | None = None,
        store_dir: str | os.PathLike[str] | None = None,
        hu_offset: float | None = None,
    ) -> None:
        geometry = geometry_of(info)
        self.size = geometry.size
        label_set = label_set_of(info, label_map)
        self.classes: tuple[str, ...] = () if label_set is None else label_set.classes
        store = SliceStore(self._temporary() if store_dir is None else store_dir, geometry)
        self.converted = _converted(store, sources, label_set, intensity_of(info), hu_offset)
        self.files: dict[Path, list[int]] = {}
        self._places: list[tuple[int, int]] = []  # number of the file, slice in it
        for number, file in enumerate(self.converted):
            start = len(self._places)
            self._places += [(number, index) for index in range(file.condition.depth)]
            self.files[file.path] = list(range(start, len(self._places)))
        self._reader = SliceReader()
        if label_set is not None:
            self._warn_of_empty(int(info.get("min_pixels", 1)))

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, position: int) -> dict[str, Any]:
        number, index = self._places[position]
        file = self.converted[number]
        if file.table is None:
            label = to_network(self._reader.image(file.condition, index))
        else:
            label = file.table[self._reader.label(file.condition, index)].astype(np.float32)
        place = place_in(file.condition, index, stem(file.path))
        return {"label": torch.from_numpy(label[None]), "sample": position, **place}  # (1, S, S)

    def _warn_of_empty(self, least: int) -> None:
        """One line where slices hold less than the model's training asked for."""
        found = {
            file.path: int((np.asarray(file.condition.counts)[:, file.table > 0].sum(axis=1) < least).sum())
            for file in self.converted
            if file.table is not None and file.table.any()  # else that was said
        }
        few = {path: count for path, count in found.items() if count}
        if few:
            logger.warning(
                "%d of %d slices hold fewer than %d pixels of the model's structures, the first in %s: it "
                "was trained without such slices, what it draws there is not to be relied on; train with "
                "--min_pixels 0 for them",
                sum(few.values()),
                len(self),
                least,
                next(iter(few)),
            )

    def _temporary(self) -> Path:
        """A folder that goes with this object, or at the latest with this process."""
        folder = Path(tempfile.mkdtemp(prefix="slices-"))
        weakref.finalize(self, _remove, folder, os.getpid())
        return folder


def place_in(volume: StoredVolume, index: int, name: str) -> dict[str, Any]:
    """The place of a stored slice in the noise that goes by ``name``, see `common.data.noise`."""
    return noise_place(name, index * volume.slice_mm) if is_volume(volume.source) else noise_place(name)


def geometry_of(info: Mapping[str, Any]) -> Geometry:
    """How a model's slices are cut."""
    names = ("axis", "spacing", "interpolation", "fit")
    size = int(info.get("image_size", DEFAULT_SIZE))
    return Geometry(size, **{name: info[name] for name in names if name in info})


def intensity_of(info: Mapping[str, Any]) -> Intensity:
    """What a model's 0 and 1 are made of."""
    return Intensity(**info["intensity"]) if "intensity" in info else Intensity()


def label_set_of(info: Mapping[str, Any], label_map: LabelMap | None = None) -> LabelSet | None:
    """A model's classes with the map that is to be used; None where its condition is an image."""
    if info.get("condition", "label") == "image":
        return None
    label_set = LabelSet.from_state(info["label_set"]) if info.get("label_set") else LabelSet()
    if label_map is None:
        return label_set
    return label_set.with_map(None if label_map == DEFAULT_MAP else label_map)


def _converted(
    store: SliceStore,
    sources: Sequence[Source],
    label_set: LabelSet | None,
    intensity: Intensity,
    hu_offset: float | None,
) -> list[Converted]:
    requests = [
        Request(source.condition, "image", intensity, hu_offset=hu_offset)
        if label_set is None
        else Request(source.condition, "label")
        for source in sources
    ]
    real = [
        Request(source.real, "image", intensity, hu_offset=hu_offset)
        for source in sources
        if source.real is not None
    ]
    volumes = store.convert([*requests, *real])
    images = iter(volumes[len(sources) :])
    return [
        _checked(condition, label_set, None if source.real is None else next(images))
        for source, condition in zip(sources, volumes, strict=False)  # the rest are the real images
    ]


def _checked(condition: StoredVolume, label_set: LabelSet | None, real: StoredVolume | None) -> Converted:
    if real is not None:
        check_same_grid(real, condition)
    if label_set is None:
        return Converted(condition, None, real)
    table = label_set.table(condition.values, condition.source)
    if is_volume(condition.source) and not table.any():
        logger.warning(
            "%s: holds none of the model's structures (%s)", condition.source, ", ".join(label_set.classes)
        )
    return Converted(condition, table, real)


def _remove(folder: Path, owner: int) -> None:
    """Not by a process forked from the owner."""
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)
