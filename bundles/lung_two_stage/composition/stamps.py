"""A nodule crop brought to a slice's pixel size, centred on a pixel, with what surrounds it measured.

A crop's HU at a nodule's rim are mixtures of nodule and lung already. Weighed by a soft alpha once more the
nodule would lose half of its rim, so alpha is 1 over the whole zone of mixed pixels and falls to 0 beyond it,
where the crop shows lung alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import affine_transform, distance_transform_edt, gaussian_filter, map_coordinates

from bundles.lung_two_stage.composition.grain import grain_of, lung_of
from bundles.lung_two_stage.composition.seeing import Outline, outline_of

NODULE_ALPHA = 128
"""Alpha of a crop (of 255) from which a pixel counts as nodule: half of it is."""
SOFT_TISSUE = 50.0
"""HU that are the same in every scan; what is less dense is a mixture of this and the lung."""
MIXED_MM = 1.5
"""Beyond the mask's border a nodule shows through this far, and a pixel farther: blur of scanner and crop."""
OWN_MM = 0.75
"""Beyond the mask's border all is the nodule's this far; masks are no more exact than that."""
FADE = 0.5
"""Share of that width in which alpha then falls to 0."""
BORDER = 4
"""Pixels around all of this that come along: there the lung beside it is measured."""
NOISY = 2.0
"""Standard deviations of the noise above the lung's level that are lung still, in the mean over 3 x 3."""
EDGE = 3.0
"""Standard deviations of the noise from which grain is rather an edge; at twice that it is one."""


@dataclass(frozen=True)
class Stamp:
    """A nodule ready to be laid on a slice with its middle pixel on the wanted place.

    Args:
        hu: (n, n) float32, n odd.
        alpha: (n, n) float32 in [0, 1]: 1 wherever a pixel holds some of the nodule, 0 at the border.
        grain: (n, n) float32, the finest texture of ``hu`` without edges, see `grain_of`.
        background: HU of the lung around it in its own scan.
        noise: standard deviation there, HU.
        inside: (n, n) bool, the crop's mask, of at least one pixel: what readers, or the generator, drew.
        outline: what a reader would measure in ``hu``.
    """

    hu: NDArray[np.float32]
    alpha: NDArray[np.float32]
    grain: NDArray[np.float32]
    background: float
    noise: float
    inside: NDArray[np.bool_]
    outline: Outline

    def turned(self, turn: Callable[[np.ndarray], np.ndarray]) -> Stamp:
        """Flipped or rotated about the middle pixel."""
        return replace(
            self,
            hu=turn(self.hu),
            alpha=turn(self.alpha),
            grain=turn(self.grain),
            inside=turn(self.inside),
        )


def make_stamp(
    hu: NDArray[np.int16],
    alpha: NDArray[np.uint8],
    centre: NDArray[np.float64],
    crop_mm: float,
    spacing_mm: float,
) -> Stamp:
    """Resamples a crop linearly, after smoothing where it gets coarser.

    What touches the nodule in the crop, a vessel or the wall, ends with the zone of mixed pixels.

    Args:
        hu, alpha: (S, S) of the crop.
        centre: (2,) row and column, in the crop, that the middle pixel of the stamp shows.
        crop_mm, spacing_mm: side of a pixel in the crop and in the stamp.
    """
    step, mixed = spacing_mm / crop_mm, MIXED_MM + spacing_mm
    mask, frame = alpha >= NODULE_ALPHA, int(np.ceil((1 + FADE) * mixed / crop_mm)) + 1
    reach = np.abs(np.argwhere(mask) - centre).max(initial=0.0)  # pixels of the crop
    half = int(np.ceil((reach * crop_mm + (1 + FADE) * mixed) / spacing_mm)) + BORDER
    start = centre + frame - half * step
    smoothing = 0.5 * max(step**2 - 1, 0.0) ** 0.5

    def resampled(array: np.ndarray, smooth: float = 0.0) -> NDArray[np.float32]:
        source = array.astype(np.float32)
        source = gaussian_filter(source, smooth) if smooth > 0.1 else source
        return affine_transform(source, [step, step], start, (2 * half + 1,) * 2, order=1, mode="nearest")

    values = resampled(np.pad(hu, frame, "edge"), smoothing)
    outside = distance_transform_edt(~np.pad(mask, frame), crop_mm) - crop_mm / 2
    beyond = resampled(outside)  # mm from the mask's border
    grain = grain_of(values)
    whole = resampled(np.pad(np.ones(hu.shape), frame)) > 0.999  # the crop shows it
    lung = lung_of(values, grain, whole & (beyond > (1 + FADE) * mixed))
    background, noise = (float(np.percentile(values, 10)), 0.0) if lung is None else lung
    grain = _without_edges(grain, noise)
    values = _alone(values, grain, beyond, mixed, background + NOISY * noise)
    share = 1 - smoothstep((beyond / np.float32(mixed) - 1) / np.float32(FADE))
    drawn = resampled(np.pad(alpha, frame), smoothing)
    inside = drawn >= min(NODULE_ALPHA - 0.5, float(drawn.max()))
    near = inside | (whole & (beyond < mixed))
    outline = outline_of(values - np.float32(background), near, inside, spacing_mm, noise)
    return Stamp(values, share, grain, background, noise, inside, outline)


def smoothstep(share: NDArray[np.float32]) -> NDArray[np.float32]:
    """0 up to 0, 1 from 1 on, smooth between."""
    within = share.clip(0, 1)
    return within**2 * (3 - 2 * within)


def _alone(
    values: NDArray[np.float32],
    grain: NDArray[np.float32],
    beyond: NDArray[np.float32],
    mixed: float,
    lung: float,
) -> NDArray[np.float32]:
    """The crop without what touches the nodule: at the end of the zone of mixed pixels only lung is left.

    A nodule's own blur stays below the limit everywhere, and gets less from half the way on; its HU do not
    change.

    Args:
        values, grain: (n, n) HU, and the finest texture of it.
        beyond: (n, n) mm from the mask's border.
        mixed: width of the zone in mm.
        lung: HU up to which it is lung.
    """
    outside = beyond > OWN_MM
    if not outside.any() or outside.all():
        return values
    top = max(SOFT_TISSUE, float(np.percentile(values[~outside], 95)))
    share = 1 - smoothstep((beyond - np.float32(OWN_MM)) / np.float32(mixed - OWN_MM))
    limit = share * np.float32(top - lung) + np.float32(lung)
    smooth = values - grain
    nearest = distance_transform_edt(beyond > 0, return_distances=False, return_indices=True)
    nearer = map_coordinates(smooth, (np.indices(values.shape) + nearest) / 2, order=1)
    limit = np.minimum(limit, np.maximum(nearer, np.float32(lung)))
    return values - np.where(outside, np.maximum(smooth - limit, 0), 0)


def _without_edges(grain: NDArray[np.float32], noise: float) -> NDArray[np.float32]:
    """Only what noise of this strength explains: a nodule's edge must not be calmed away."""
    if noise <= 0:
        return np.zeros_like(grain)
    return grain * (2 - np.abs(grain) / np.float32(EDGE * noise)).clip(0, 1)
