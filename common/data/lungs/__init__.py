"""Lung parenchyma of CT volumes and slices by classical means: no training, no weights."""

from __future__ import annotations

from common.data.lungs.parts import segment_lung_part
from common.data.lungs.segmentation import segment_lung_slice, segment_lungs
from common.data.lungs.threshold import otsu

__all__ = ["otsu", "segment_lung_part", "segment_lung_slice", "segment_lungs"]
