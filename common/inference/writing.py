"""Generated slices back to files: same name, same geometry, HU where the format carries HU."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from common.data.intensity import Window, from_network, to_hu
from common.data.resizing import unfit_square
from common.data.samples import restore_orientation, stem
from common.data.volume_files import is_volume
from common.data.volumes import open_volume, write_nifti
from common.errors import UserError
from common.files import atomic_write
from common.inference.collecting import FileCollector
from common.inference.masks import MaskSlices, files_of
from common.provenance import UNKNOWN, Provenance


class SliceWriter(FileCollector):
    """Writes each mask's CT as soon as an evaluator has given its last slice.

    Pictures become 8-bit PNG ([-1, 1] -> 0..255); volumes become NIfTI int16 in HU with the mask's affine,
    shape and compression. An existing file is replaced, whole. Each says that it is synthetic, and has a JSON
    file beside it (`common.provenance`).

    Args:
        dataset: what the predictions belong to.
        output_dir: made where it is missing; must not be the masks' own folder.
        window: the HU range of [-1, 1] that the model was trained with.
        provenance: what makes the images.
    Raises:
        UserError: ``output_dir`` is the masks' folder.
    """

    def __init__(
        self,
        dataset: MaskSlices,
        output_dir: str | os.PathLike[str],
        window: Window,
        provenance: Provenance = UNKNOWN,
    ) -> None:
        super().__init__(files_of(dataset.samples))
        self.dataset, self.folder, self.window = dataset, Path(output_dir), window
        self.provenance = provenance
        check_apart(list(self.files), self.folder, "masks")

    def keep(self, position: int, prediction: Tensor) -> np.ndarray:
        """The slice in [0, 1] at its mask's own size, (H, W) float32."""
        unit = from_network(prediction[0].float().cpu().numpy())
        return unfit_square(unit, *self.dataset.shapes[position], self.dataset.fit)

    def write(self, source: Path, slices: list[np.ndarray]) -> Path:
        """One PNG or NIfTI file, and its JSON."""
        sample = self.dataset.samples[self.files[source][0]]
        turned = [restore_orientation(array, sample.orientation) for array in slices]
        path = self.folder / result_name(source)
        if is_volume(source):
            hu = to_hu(np.stack(turned, axis=-1), self.window)
            write_nifti(path, open_volume(source), hu, provenance=self.provenance)
        else:
            write_picture(path, turned[0], self.provenance.png(source))
        self.provenance.write_beside(path, source)
        return path

    def report(self) -> None:
        """One line: how many files, where."""
        print(f"{len(self.written)} CT files for {len(self.files)} masks in {self.folder}")


def check_apart(sources: list[Path], folder: Path, what: str) -> None:
    """Refuses to write beside or into the sources: results bear the same names.

    Raises:
        UserError: ``folder`` is a source's folder, or a source itself (a DICOM series).
    """
    taken = {place.resolve() for source in sources for place in (source, source.parent)}
    if folder.resolve() in taken:
        raise UserError(f"{folder}: holds the {what} themselves; choose another --output_dir")


def result_name(source: Path) -> str:
    """A result's file name: PNG for pictures, NIfTI for volumes, compressed unless the source is .nii."""
    if not is_volume(source):
        return f"{stem(source)}.png"
    return stem(source) + (".nii" if source.name.lower().endswith(".nii") else ".nii.gz")


def write_picture(path: Path, unit: np.ndarray, text: PngInfo) -> None:
    """[0, 1] (H, W) as 8-bit PNG with these text chunks, atomically."""
    with atomic_write(path) as temporary:
        Image.fromarray(np.rint(unit * 255).astype(np.uint8)).save(temporary, pnginfo=text)
