"""Generated volumes: where their labels lie, in HU, with a measure of their flicker."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from common.data.samples import restore_orientation
from common.data.store.planes import from_planes
from common.data.volumes import is_volume, write_nifti
from common.errors import UserError
from common.files import write_json
from common.inference.assembly import assembled, condition_planes, kept, plane_of, real_planes
from common.inference.collecting import FileCollector
from common.inference.flicker import STRUCTURES, Flicker, flicker
from common.inference.labels import LabelSlices
from common.inference.models import Scale
from common.inference.smoothing import check_sigma, smooth_across
from common.inference.writing import check_apart, result_name, write_picture
from common.provenance import UNKNOWN, Provenance

FLICKER_FILE = "flicker.json"
# The one part that is measured where no label tells structures apart.
EVERYWHERE = ("everywhere",)


class VolumeWriter(FileCollector):
    """Writes each label file's image as soon as an evaluator has given its last slice.

    Volumes become NIfTI int16 with shape and affine of the label file, pictures 8-bit PNG (0..255 for 0..1).
    An existing file is replaced, whole. Each says that it is synthetic, and has a JSON file beside it
    (`common.provenance`). Of each volume flicker and columns are measured
    (`common.inference.flicker`), said in one line and put into ``flicker.json``: as ``generated``, as
    ``smoothed`` where that is asked for, and of the ``real`` image where there is one, brought to the range
    and resolution of the generated one.

    Args:
        dataset: what the predictions belong to.
        output_dir: made where it is missing; must not be the labels' own folder.
        scale: what the generated [-1, 1] stands for.
        smooth_slices: width in slices of the smoothing along the slice axis; 0 for none.
        provenance: what makes the images.
    Raises:
        UserError: ``output_dir`` is the labels' folder, or ``smooth_slices`` makes no sense.
    """

    def __init__(
        self,
        dataset: LabelSlices,
        output_dir: str | os.PathLike[str],
        scale: Scale,
        smooth_slices: float = 0.0,
        provenance: Provenance = UNKNOWN,
    ) -> None:
        super().__init__(dataset.files)
        self.folder, self.scale, self.sigma = Path(output_dir), scale, check_sigma(smooth_slices)
        self.classes, self.provenance = dataset.classes or EVERYWHERE, provenance
        if self.sigma and not dataset.classes:
            raise UserError("smooth_slices stops at the borders of labels; this model has none: leave it 0")
        check_apart(list(self.files), self.folder, "labels")
        self.flicker: dict[str, dict[str, dict[str, Flicker]]] = {}
        self._converted = {file.path: file for file in dataset.converted}

    def keep(self, position: int, prediction: Tensor) -> np.ndarray:
        """The image in 16 bits, (S, S): what it takes at its file's size it takes one file at a time."""
        return kept(prediction)

    def write(self, source: Path, slices: list[np.ndarray]) -> Path:
        """One PNG or NIfTI file, and its JSON."""
        path = self.folder / result_name(source)
        if is_volume(source):
            self._write_volume(source, slices, path)
        else:
            condition = self._converted[source].condition
            unit = plane_of(slices[0], condition)
            upright = restore_orientation(unit, condition.orientation)
            write_picture(path, upright, self.provenance.png(source))
        self.provenance.write_beside(path, source, smooth_slices=self.sigma)
        return path

    def report(self) -> None:
        """``flicker.json`` for volumes; one line: how many files, in which unit, where."""
        if self.flicker:
            write_json(self.folder / FLICKER_FILE, self._plain())
        number = len(self.files)
        print(f"{len(self.written)} images ({self.scale}) for {number} label files in {self.folder}")

    def _write_volume(self, source: Path, slices: list[np.ndarray], path: Path) -> None:
        file = self._converted[source]
        place, classes = condition_planes(file.condition, file.table)  # (N, h, w)
        image = assembled(slices, file.condition, self.scale.window)
        mm = file.condition.slice_mm
        found = {"generated": flicker(image, classes, self.classes, mm)}
        if self.sigma:
            image = smooth_across(image, classes, self.sigma)
            found["smoothed"] = flicker(image, classes, self.classes, mm)
        voxels = from_planes(image, file.condition.geometry.axis)
        write_nifti(path, place, voxels, provenance=self.provenance)
        if file.real is not None:
            found["real"] = flicker(real_planes(file.real, self.scale.window), classes, self.classes, mm)
        self.flicker[path.name] = found
        line = "; ".join(f"{name} {parts[STRUCTURES]}" for name, parts in found.items())
        print(f"{path.name}: flicker in {self.scale.unit}: {line}")

    def _plain(self) -> dict[str, Any]:
        volumes = {
            name: {
                kind: {part: value.plain() for part, value in parts.items()} for kind, parts in found.items()
            }
            for name, found in self.flicker.items()
        }
        return {"unit": self.scale.unit, "smooth_slices": self.sigma, "volumes": volumes}
