"""Nodule patches: crops resampled to a slice's pixel size, with noise, outline and surrounding lung measured.

A crop's HU at a nodule's rim are mixtures of nodule and lung already. Weighted by a soft alpha once more, the
nodule would lose half of its rim. Alpha is therefore 1 over the whole zone of mixed pixels and falls to 0
beyond it, where the crop shows lung alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import (
    affine_transform,
    binary_dilation,
    binary_erosion,
    binary_fill_holes,
    distance_transform_edt,
    gaussian_filter,
    label,
    map_coordinates,
    maximum_filter,
    uniform_filter,
    zoom,
)

NEIGHBOUR = 0.2
"""Weight of the neighbours in synthetic noise, where the pixel itself has 1: a soft reconstruction filter."""
_ROW = np.array([NEIGHBOUR, 1.0, NEIGHBOUR]) / np.sqrt(1 + 2 * NEIGHBOUR**2)
MAD_TO_DEVIATION = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""
AERATED = -500
"""HU below which a pixel is lung."""
MIN_LUNG_PIXELS = 16
"""Fewer pixels of lung are not measured."""
TRIM_ROUNDS, TRIM_AT, BELOW = 3, 2.0, 0.16
"""In each round, pixels more than 2 standard deviations above the median are left out; 16 % of a normal
distribution lie more than one standard deviation below its mean."""
EDGE_AT = 4.0
"""Standard deviations above the lung's level from which a pixel belongs to something else."""


def high_pass(hu: NDArray[np.float32]) -> NDArray[np.float32]:
    """The grain of an image: every pixel less the mean of its 3 x 3 neighbourhood."""
    return hu - uniform_filter(hu, 3, mode="nearest")


def estimate_noise(grain: NDArray[np.float32]) -> float:
    """Standard deviation in HU of the noise that an image's grain comes from; a few edges do not matter.

    Example:
        >>> noise = 25 * make_noise(np.random.default_rng(0), 64)
        >>> round(estimate_noise(high_pass(noise)))
        25

    Args:
        grain: any shape, from `high_pass`, of a region without much structure.
    """
    return float(np.median(np.abs(grain))) * MAD_TO_DEVIATION / _GRAIN_OF_NOISE


def measure_lung(
    hu: NDArray[np.float32], grain: NDArray[np.float32], region: NDArray[np.bool_]
) -> tuple[float, float] | None:
    """Level and noise in HU of the lung in a region; None where too few pixels show lung alone.

    Vessels and the chest wall are left out.

    Args:
        hu, grain: the image and its grain.
        region: of the same shape.
    """
    lung = hu[region & (hu < AERATED)]
    if lung.size < MIN_LUNG_PIXELS:
        lung = hu[region]
    if lung.size < MIN_LUNG_PIXELS:
        return None
    ordered = np.sort(lung)
    for _ in range(TRIM_ROUNDS):  # vessels and wall are brighter: the lower half gives the deviation
        middle = ordered[len(ordered) // 2]
        deviation = middle - ordered[int(len(ordered) * BELOW)]
        ordered = ordered[: np.searchsorted(ordered, middle + TRIM_AT * deviation, side="right")]
    level = float(np.median(ordered))
    without_edges = maximum_filter(hu, 3) <= level + EDGE_AT * max(float(deviation), 1.0)
    plain = region & without_edges
    return (level, estimate_noise(grain[plain])) if plain.sum() >= MIN_LUNG_PIXELS else None


def make_noise(random: np.random.Generator, side: int) -> NDArray[np.float32]:
    """Noise (side, side) of mean 0 and standard deviation 1, correlated between neighbours."""
    white = random.standard_normal((side + 2, side + 2), dtype=np.float32)
    a, b, c = (np.float32(weight) for weight in _ROW)
    rows = a * white[:-2] + b * white[1:-1] + c * white[2:]  # (side, side + 2)
    return a * rows[:, :-2] + b * rows[:, 1:-1] + c * rows[:, 2:]


_GRAIN_OF_NOISE = float(np.sqrt((high_pass(np.pad(np.outer(_ROW, _ROW).astype(np.float32), 2)) ** 2).sum()))
"""Standard deviation of the grain of `make_noise`."""


FINE_MM = 0.5
"""Side of the grid on which outlines are found, about; at most half of a pixel's side."""
REACH_MM = 2.0
"""Neighbourhood whose maximum counts: wider than the blur of an edge."""
MIN_CONTRAST = 80.0
"""Least contrast in HU that is told from lung."""
OVER_NOISE = 3.0
"""The same in standard deviations of the noise."""
MIN_SHARE = 0.2
"""Least share of the mask that an outline covers; specks of noise cover less."""


@dataclass(frozen=True)
class Outline:
    """The outline of a nodule.

    Args:
        points: (P, 2) rows and columns of the grid points inside, in pixels of the image.
        diameter_mm: of the disc with the same area; pixels on the contour count in part.
        point_mm: spacing of the grid points.
    """

    points: NDArray[np.float64]
    diameter_mm: float
    point_mm: float


def find_outline(
    contrast: NDArray[np.float32],
    near: NDArray[np.bool_],
    drawn: NDArray[np.bool_],
    pixel_mm: float,
    noise: float,
) -> Outline:
    """Finds a nodule's outline at half of its maximum.

    A point belongs to the nodule if it has at least half of the largest contrast within 2 mm. A part-solid
    nodule therefore ends where its ground glass has half of its own contrast, as readers measure it. Holes
    are filled.

    Args:
        contrast: (H, W) HU above the lung.
        near: (H, W) where the nodule may be.
        drawn: (H, W) its mask, not empty; returned as it is if less than `MIN_SHARE` of it is visible.
        pixel_mm: side of a pixel.
        noise: standard deviation, HU.
    """
    box, fine = _box(near), max(2, round(pixel_mm / FINE_MM))
    point_mm, corner = pixel_mm / fine, np.array([part.start for part in box])
    near, drawn = (part[box].repeat(fine, 0).repeat(fine, 1) for part in (near, drawn))
    values = zoom(contrast[box], fine, order=3, mode="nearest", grid_mode=True)
    around = maximum_filter(
        np.where(near, values, 0), 2 * max(1, round(max(REACH_MM, pixel_mm) / point_mm)) + 1
    )
    limit = np.maximum(around / 2, max(MIN_CONTRAST, OVER_NOISE * noise))
    inside = binary_fill_holes(_component_at((values >= limit) & near, drawn))
    if (inside & drawn).sum() < MIN_SHARE * drawn.sum():
        inside, limit = drawn, np.where(drawn, -np.inf, np.inf)  # whole pixels
    down, right = np.gradient(values)
    share = np.clip(0.5 + (values - limit) / np.maximum(np.hypot(down, right), 1), 0, 1)
    cut = binary_dilation(inside) & ~binary_erosion(inside)
    area = inside[~cut].sum() + share[cut].sum()
    points = (np.argwhere(inside) + 0.5) / fine - 0.5 + corner
    return Outline(points, 2 * float(np.sqrt(area / np.pi)) * point_mm, point_mm)


def _box(near: NDArray[np.bool_], border: int = 2) -> tuple[slice, slice]:
    """Bounding box with a border."""
    rows, columns = (np.flatnonzero(near.any(axis=axis)) for axis in (1, 0))
    first, second = (slice(max(int(p[0]) - border, 0), int(p[-1]) + border + 1) for p in (rows, columns))
    return first, second


def _component_at(visible: NDArray[np.bool_], drawn: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The connected component that overlaps most with ``drawn``; empty if none does."""
    components, count = label(visible)
    overlap = np.bincount(components[drawn], minlength=count + 1)[1:]
    if not overlap.any():
        return np.zeros_like(visible)
    return components == 1 + int(overlap.argmax())


NODULE_ALPHA = 128
"""Alpha of a crop (of 255) from which a pixel counts as nodule: half of it is."""
SOFT_TISSUE = 50.0
"""HU of soft tissue, the same in every scan; less dense pixels are mixtures of it with lung."""
MIXED_MM = 1.5
"""Width of the blur beyond the mask's border, to which a pixel's side is added."""
OWN_MM = 0.75
"""Up to this far from the mask everything belongs to the nodule; masks are no more exact."""
FADE = 0.5
"""Alpha falls to 0 over this share of the blur's width, beyond it."""
BORDER = 4
"""Further pixels around the patch, where its lung is measured."""
NOISY = 2.0
"""Standard deviations above the lung's level that still count as lung, in the mean over 3 x 3."""
EDGE = 3.0
"""Standard deviations of the noise from which grain counts as an edge in part; at twice that fully."""


@dataclass(frozen=True)
class NodulePatch:
    """A nodule at a slice's pixel size, its centre on the middle pixel.

    Args:
        hu: (n, n) float32, n odd.
        alpha: (n, n) float32 in [0, 1]: 1 wherever a pixel holds some of the nodule, 0 at the border.
        grain: (n, n) float32, `high_pass` of ``hu`` without edges.
        background: HU of the lung around it in its own scan.
        noise: standard deviation there, HU.
        inside: (n, n) bool, the crop's mask as readers or the generator drew it; not empty.
        outline: what a reader would measure in ``hu``.
    """

    hu: NDArray[np.float32]
    alpha: NDArray[np.float32]
    grain: NDArray[np.float32]
    background: float
    noise: float
    inside: NDArray[np.bool_]
    outline: Outline

    def flip_rot(self, transform: Callable[[np.ndarray], np.ndarray]) -> NodulePatch:
        """The patch flipped or rotated about its middle pixel."""
        hu, alpha, grain, inside = map(transform, (self.hu, self.alpha, self.grain, self.inside))
        return replace(self, hu=hu, alpha=alpha, grain=grain, inside=inside)


def make_patch(
    hu: NDArray[np.int16],
    alpha: NDArray[np.uint8],
    centre: NDArray[np.float64],
    crop_mm: float,
    spacing_mm: float,
) -> NodulePatch:
    """Resamples a crop linearly, after smoothing where it gets coarser.

    Vessels and the chest wall that touch the nodule in the crop end with the zone of mixed pixels.

    Args:
        hu, alpha: (S, S) of the crop.
        centre: (2,) row and column in the crop that become the middle pixel of the patch.
        crop_mm, spacing_mm: side of a pixel in the crop and in the patch.

    Example:
        >>> alpha = np.pad(np.full((1, 1), 255, np.uint8), 8)
        >>> make_patch(np.full((17, 17), -850, np.int16), alpha, np.array([8.0, 8.0]), 0.7, 0.7).inside.sum()
        np.int64(1)
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
    grain = high_pass(values)
    whole = resampled(np.pad(np.ones(hu.shape), frame)) > 0.999  # inside the crop
    lung = measure_lung(values, grain, whole & (beyond > (1 + FADE) * mixed))
    background, noise = (float(np.percentile(values, 10)), 0.0) if lung is None else lung
    grain = _without_edges(grain, noise)
    values = _without_neighbours(values, grain, beyond, mixed, background + NOISY * noise)
    share = 1 - smoothstep((beyond / np.float32(mixed) - 1) / np.float32(FADE))
    drawn = resampled(np.pad(alpha, frame), smoothing)
    inside = drawn >= min(NODULE_ALPHA - 0.5, float(drawn.max()))
    near = inside | (whole & (beyond < mixed))
    outline = find_outline(values - np.float32(background), near, inside, spacing_mm, noise)
    return NodulePatch(values, share, grain, background, noise, inside, outline)


def smoothstep(share: NDArray[np.float32]) -> NDArray[np.float32]:
    """The smoothstep function: 0 below 0, 1 above 1, a cubic between."""
    within = share.clip(0, 1)
    return within**2 * (3 - 2 * within)


def _without_neighbours(
    values: NDArray[np.float32],
    grain: NDArray[np.float32],
    beyond: NDArray[np.float32],
    mixed: float,
    lung: float,
) -> NDArray[np.float32]:
    """Removes what touches the nodule: beyond the zone of mixed pixels only lung is left.

    A limit falls from the nodule's HU at its border to lung at the zone's end, and along the way to the
    border too; what is above it is cut. The nodule's own blur stays below the limit and does not change.

    Args:
        values, grain: (n, n) HU, and their grain.
        beyond: (n, n) mm from the mask's border.
        mixed: width of the zone in mm.
        lung: largest HU that count as lung.
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
    """The grain that noise of this strength explains, so that reducing it leaves a nodule's edge alone."""
    if noise <= 0:
        return np.zeros_like(grain)
    return grain * (2 - np.abs(grain) / np.float32(EDGE * noise)).clip(0, 1)
