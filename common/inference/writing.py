"""Generated slices back to files: same name, same geometry, HU where the format carries HU."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from ignite.engine import Engine, Events
from PIL import Image
from torch import Tensor

from common.data.intensity import Window, from_network, to_hu
from common.data.resizing import resize_image
from common.data.samples import Sample, restore_orientation, stem
from common.data.volume_files import is_volume
from common.data.volumes import open_volume, write_nifti
from common.errors import UserError
from common.files import atomic_write
from common.inference.masks import MaskSlices, files_of


class SliceWriter:
    """Collects an evaluator's predictions and writes each file as soon as its last slice is there.

    Pictures become 8-bit PNG ([-1, 1] -> 0..255); volumes become NIfTI int16 in HU with the mask's affine,
    shape and compression. An existing file is replaced, whole.

    Args:
        dataset: what the predictions belong to.
        output_dir: made where it is missing; must not be the masks' own folder.
        window: the HU range of [-1, 1] that the model was trained with.
    Raises:
        UserError: ``output_dir`` is the masks' folder.
    """

    def __init__(self, dataset: MaskSlices, output_dir: str | os.PathLike[str], window: Window) -> None:
        self.dataset, self.folder, self.window = dataset, Path(output_dir), window
        if any(sample.image.parent.resolve() == self.folder.resolve() for sample in dataset.samples[:1]):
            raise UserError(f"{output_dir}: holds the masks themselves; choose another --output_dir")
        self.written: list[Path] = []
        self._files = files_of(dataset.samples)
        self._slices: dict[int, np.ndarray] = {}

    def attach(self, engine: Engine) -> None:
        """Takes the predictions of every iteration; says at the end what was written."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.COMPLETED, self._report)

    def _collect(self, engine: Engine) -> None:
        state: Any = engine.state
        for item, output in zip(state.batch, state.output, strict=True):
            self.add(int(item["sample"]), output["pred"])

    def add(self, position: int, prediction: Tensor) -> None:
        """Takes the prediction (1, S, S) in [-1, 1] for ``dataset[position]``."""
        sample = self.dataset.samples[position]
        unit = from_network(prediction[0].float().cpu().numpy())
        self._slices[position] = resize_image(unit, *self.dataset.shapes[position])
        positions = self._files[sample.image]
        if all(p in self._slices for p in positions):
            self._write(sample, [self._slices.pop(p) for p in positions])

    def _write(self, sample: Sample, slices: list[np.ndarray]) -> None:
        turned = [restore_orientation(array, sample.orientation) for array in slices]
        path = self.folder / f"{stem(sample.image)}{_suffix(sample.image)}"
        if is_volume(sample.image):
            write_nifti(path, open_volume(sample.image), to_hu(np.stack(turned, axis=-1), self.window))
        else:
            with atomic_write(path) as temporary:
                Image.fromarray(np.rint(turned[0] * 255).astype(np.uint8)).save(temporary)
        self.written.append(path)

    def _report(self, engine: Engine) -> None:
        print(f"{len(self.written)} CT files for {len(self._files)} masks in {self.folder}")


def _suffix(mask: Path) -> str:
    if not is_volume(mask):
        return ".png"
    return ".nii" if mask.name.lower().endswith(".nii") else ".nii.gz"
