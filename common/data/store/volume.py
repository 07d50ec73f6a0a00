"""A converted file, and the way back from its slices to the source's voxels."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from common.data.store.planes import Frame, from_planes, planes_shape
from common.data.store.request import Geometry


@dataclass(frozen=True)
class StoredVolume:
    """What the store knows of one converted file; small and picklable.

    Attributes:
        array: the ``.npy`` file (N, S, S): images uint16 (0..65535 stands for 0..1), labels uint8 codes.
        source: the file it was made from.
        kind: ``image`` or ``label``.
        geometry: how it was cut.
        orientation: what brought a 2-D picture upright.
        shape: (H, W, D) of the source in display order (rows to posterior, columns to the left, slices from
            the feet), upright; a picture has D = 1.
        affine: 4 x 4, the source's own (file voxels to world mm); identity for pictures.
        spacing: mm along H, W, D.
        lower, upper: what 0 and 1 stand for, in HU or in the file's own values.
        is_hu: whether these are HU; never for percentiles.
        values: of labels: code c in the array stands for ``values[c]``; code 0 is the background, value 0.
        counts: of labels: int32 (N, values), the pixels of each value in each stored slice.
    """

    array: Path
    source: Path
    kind: str
    geometry: Geometry
    orientation: str
    shape: tuple[int, int, int]
    affine: tuple[tuple[float, ...], ...]
    spacing: tuple[float, float, float]
    lower: float
    upper: float
    is_hu: bool
    values: tuple[int, ...]
    counts: np.ndarray = field(compare=False, repr=False)

    @property
    def depth(self) -> int:
        """N, the number of stored slices."""
        return planes_shape(self.shape, self.geometry.axis)[0]

    @property
    def slice_mm(self) -> float:
        """mm from one stored slice to the next."""
        along_rows, along_columns, along_slices = self.spacing
        return {"axial": along_slices, "coronal": along_rows, "sagittal": along_columns}[self.geometry.axis]

    def to_source(self, stack: np.ndarray, nearest: bool = False, fill: float = 0.0) -> np.ndarray:
        """A stack of slices (N, S, S) as a volume (H, W, D) in display order: undoes cut, crop and resizing.

        Args:
            stack: N slices, as they are stored or as a network made them.
            nearest: for labels; the type stays. Else linear, float32.
            fill: where the source was cropped away.
        Raises:
            ValueError: another number or size of slices.
        """
        expected = (self.depth, self.geometry.size, self.geometry.size)
        if stack.shape != expected:
            raise ValueError(f"{self.source}: a stack of shape {stack.shape} where {expected} was expected")
        frame = Frame.of(self.geometry, self.shape, self.spacing)
        back = frame.label_back if nearest else frame.image_back
        planes = np.stack([back(square, fill) for square in stack])  # (N, h, w)
        return np.ascontiguousarray(from_planes(planes, self.geometry.axis))
