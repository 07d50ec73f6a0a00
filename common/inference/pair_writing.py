"""New pairs of image and label map, as a data set: ``images/`` and ``labels/`` under equal names."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from common.data.samples import restore_orientation
from common.data.store.planes import from_planes
from common.data.volumes import Volume, is_volume, write_nifti
from common.errors import UserError
from common.files import atomic_write, write_json
from common.inference.annotating import given_plane, map_plane, values_of_classes
from common.inference.assembly import assembled, kept, plane_of
from common.inference.collecting import FileCollector
from common.inference.models import Scale
from common.inference.smoothing import check_sigma, smooth_across
from common.inference.variants import LabelVariants, Variant
from common.inference.writing import check_apart, write_picture
from common.metrics.dice import mean_dice, overlap_counts
from common.provenance import UNKNOWN, Provenance

IMAGES, LABELS, RECORD = "images", "labels", "pairs.json"


class PairWriter(FileCollector):
    """Writes each variant's image and label map as soon as an evaluator has given its last slice.

    Volumes become NIfTI with shape and affine of the file that the variant started from: ``images/NAME`` in
    int16 HU, ``labels/NAME`` in uint16, the file's own label values. Pictures become 8-bit PNG. The label map
    is what the generator drew beside the image; of a generator that draws images alone it is the perturbed
    map that it drew from. ``pairs.json`` says what each pair was made of. Images and maps say that they are
    synthetic; an image has a JSON file beside it (`common.provenance`).

    Args:
        dataset: what the predictions belong to.
        output_dir: made where it is missing.
        scale: what the generated [-1, 1] stands for.
        smooth_slices: width in slices of the smoothing along the slice axis, within structures; 0 for none.
        provenance: what makes the pairs.
    Raises:
        UserError: ``output_dir`` holds the labels themselves, or ``smooth_slices`` makes no sense.
    """

    def __init__(
        self,
        dataset: LabelVariants,
        output_dir: str | os.PathLike[str],
        scale: Scale,
        smooth_slices: float = 0.0,
        provenance: Provenance = UNKNOWN,
    ) -> None:
        super().__init__(dataset.files)
        self.dataset, self.folder, self.scale = dataset, Path(output_dir), scale
        self.sigma, self.provenance = check_sigma(smooth_slices), provenance
        sources = [variant.file.path for variant in dataset.variants]
        for place in (self.folder, self.folder / IMAGES, self.folder / LABELS):
            check_apart(sources, place, "labels")
        self.pairs: list[dict[str, Any]] = []
        self._variants = {Path(variant.name): variant for variant in dataset.variants}
        self._maps: dict[int, np.ndarray] = {}

    def keep(self, position: int, prediction: Tensor) -> np.ndarray:
        """The image in 16 bits, (S, S). Its map is kept apart, as a plane of the source."""
        channels = len(self.dataset.classes) + 2
        if len(prediction) not in (1, channels):
            raise UserError(
                f"the model draws {len(prediction)} channels where image and map of {channels - 2} classes "
                f"are {channels}; give the model's own configs"
            )
        volume = self._variants[self._source[position]].file.condition
        drawn = len(prediction) == channels
        condition = self.dataset.condition(position)
        self._maps[position] = map_plane(prediction, volume) if drawn else given_plane(condition, volume)
        return kept(prediction)

    def write(self, source: Path, slices: list[np.ndarray]) -> Path:
        """Two files and the image's JSON; returns the image's."""
        variant = self._variants[source]
        maps = np.stack([self._maps.pop(position) for position in self.files[source]])  # (N, h, w)
        others = [each.file for each in self.dataset.variants]
        values = values_of_classes(variant.file, self.dataset.classes, others)
        volume = is_volume(variant.file.path)
        path = (self._write_volumes if volume else self._write_pictures)(variant, slices, maps, values)
        self.provenance.write_beside(path, variant.file.path, **_facts(variant))
        self.pairs.append(self._record(variant, path.name, maps))
        return path

    def report(self) -> None:
        """``pairs.json``, and one line: how many pairs, in which unit, where."""
        write_json(self.folder / RECORD, {"seed": self.dataset.seed, "pairs": self.pairs})
        overlap = float(np.mean([pair["dice_with_source"] for pair in self.pairs]))
        print(
            f"{len(self.written)} pairs of image ({self.scale}) and label map in {self.folder}; "
            f"Dice of the maps with those they started from: {overlap:.2f} on average"
        )

    def _write_volumes(
        self, variant: Variant, slices: list[np.ndarray], maps: np.ndarray, values: np.ndarray
    ) -> Path:
        volume = variant.file.condition
        image = assembled(slices, volume, self.scale.window)
        if self.sigma:
            image = smooth_across(image, maps, self.sigma)
        source = Volume.from_file(volume.source)
        place = replace(source, array=np.empty((0, 0, 0)))
        paths = [self.folder / folder / f"{variant.name}.nii.gz" for folder in (IMAGES, LABELS)]
        voxels = [from_planes(planes, volume.geometry.axis) for planes in (image, values[maps])]
        write_nifti(paths[0], place, voxels[0], provenance=self.provenance)
        write_nifti(paths[1], place, voxels[1], np.uint16, self.provenance)
        return paths[0]

    def _write_pictures(
        self, variant: Variant, slices: list[np.ndarray], maps: np.ndarray, values: np.ndarray
    ) -> Path:
        volume = variant.file.condition
        if values.max() > np.iinfo(np.uint8).max:
            raise UserError(f"{volume.source}: value {values.max()} does not fit into a PNG of 8 bits")
        image, label = (self.folder / folder / f"{variant.name}.png" for folder in (IMAGES, LABELS))
        text = self.provenance.png(variant.file.path, **_facts(variant))
        write_picture(image, restore_orientation(plane_of(slices[0], volume), volume.orientation), text)
        marks = restore_orientation(values[maps[0]].astype(np.uint8), volume.orientation)
        with atomic_write(label) as temporary:
            Image.fromarray(marks).save(temporary, pnginfo=text)
        return image

    def _record(self, variant: Variant, name: str, maps: np.ndarray) -> dict[str, Any]:
        volume, own = variant.file.condition, self.dataset.original(variant.file)
        there = np.stack([given_plane(plane, volume) for plane in own])  # (N, h, w)
        counts = overlap_counts(torch.from_numpy(maps), torch.from_numpy(there), len(self.dataset.classes))
        overlap = mean_dice(counts)
        partner = None if variant.partner is None else str(variant.partner.path)
        return {
            "name": name,
            "source": str(volume.source),
            "partner": partner,
            "partner_weight": variant.draw.weight if partner else 0.0,
            "dice_with_source": round(overlap, 4) if overlap == overlap else 0.0,
        }


def _facts(variant: Variant) -> dict[str, Any]:
    """What the image's record says beside its condition."""
    partner = {} if variant.partner is None else {"partner": variant.partner.path.name}
    return {"variant": variant.name, **partner}
