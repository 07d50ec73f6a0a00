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
"""Weight of the neighbours in made noise, the pixel itself has 1: as after a soft reconstruction filter."""
_ROW = np.array([NEIGHBOUR, 1.0, NEIGHBOUR]) / np.sqrt(1 + 2 * NEIGHBOUR**2)
MAD_TO_DEVIATION = 1.4826
"""Of a normal distribution."""
AERATED = -500
"""HU below which a pixel is lung."""
FEWEST = 16
"""Pixels of lung that it takes to measure it."""
TRIMMINGS, TRIMMED, BELOW = 3, 2.0, 0.16
"""Rounds in which what is more than so many standard deviations above the median is left out; the share of a
normal distribution that is more than one below."""
GRAIN_EDGE = 4.0
"""Standard deviations above the level from which a pixel is part of something else."""


def grain_of(hu: NDArray[np.float32]) -> NDArray[np.float32]:
    """The finest texture: every pixel less the mean of its 3 x 3 neighbourhood."""
    return hu - uniform_filter(hu, 3, mode="nearest")


def noise_of(grain: NDArray[np.float32]) -> float:
    """Standard deviation in HU of the noise that left this grain; few edges among it do not count.

    Args:
        grain: any shape, from `grain_of`, of a place without much structure.
    """
    return float(np.median(np.abs(grain))) * MAD_TO_DEVIATION / _LEFT


def lung_of(
    hu: NDArray[np.float32], grain: NDArray[np.float32], there: NDArray[np.bool_]
) -> tuple[float, float] | None:
    """Level and noise in HU of the lung ``there``; None where too few pixels show lung alone.

    Vessels, and the wall beside a nodule that touches it, do not count.

    Args:
        hu, grain: the picture and its finest texture.
        there: where to look; any shape, as the two.
    """
    lung = hu[there & (hu < AERATED)]
    if lung.size < FEWEST:
        lung = hu[there]
    if lung.size < FEWEST:
        return None
    ordered = np.sort(lung)
    for _ in range(TRIMMINGS):  # some vessel or wall makes pixels brighter: the lower half tells the spread
        middle = ordered[len(ordered) // 2]
        spread = middle - ordered[int(len(ordered) * BELOW)]
        ordered = ordered[: np.searchsorted(ordered, middle + TRIMMED * spread, side="right")]
    level = float(np.median(ordered))
    plain = there & (
        maximum_filter(hu, 3) <= level + GRAIN_EDGE * max(float(spread), 1.0)
    )  # no edge in its grain
    return (level, noise_of(grain[plain])) if plain.sum() >= FEWEST else None


def make_noise(random: np.random.Generator, side: int) -> NDArray[np.float32]:
    """Noise (side, side) of mean 0 and standard deviation 1, correlated between neighbours."""
    white = random.standard_normal((side + 2, side + 2), dtype=np.float32)
    a, b, c = (np.float32(weight) for weight in _ROW)
    rows = a * white[:-2] + b * white[1:-1] + c * white[2:]  # (side, side + 2)
    return a * rows[:, :-2] + b * rows[:, 1:-1] + c * rows[:, 2:]


def _left() -> float:
    """Standard deviation of the grain of `make_noise`: its filter, less the mean over 3 x 3 of it."""
    kernel = np.zeros((7, 7), np.float32)
    kernel[2:5, 2:5] = np.outer(_ROW, _ROW)
    return float(np.sqrt((grain_of(kernel) ** 2).sum()))


_LEFT = _left()


FINE_MM = 0.5
"""Side of the points on which the outline runs, about; at most half of a pixel's."""
REACH_MM = 2.0
"""What surrounds a pixel: farther than blur reaches from an edge."""
LEAST = 80.0
"""HU of contrast that can be told from lung."""
OVER_NOISE = 3.0
"""And that in standard deviations of the noise."""
SEEN = 0.2
"""Share of the mask that an outline has at least (specks have less); 0.25 where the mask is twice as wide."""


@dataclass(frozen=True)
class Outline:
    """The outline of a nodule.

    Args:
        points: (P, 2) row and column, in pixels of the picture, of what lies within.
        diameter_mm: of the disc with the area that the contour holds; pixels that it cuts count in part.
        point_mm: side of what a point stands for.
    """

    points: NDArray[np.float64]
    diameter_mm: float
    point_mm: float


def outline_of(
    contrast: NDArray[np.float32],
    near: NDArray[np.bool_],
    drawn: NDArray[np.bool_],
    pixel_mm: float,
    noise: float,
) -> Outline:
    """The outline at the half-maximum.

    A point belongs to the nodule where it has at least half of the contrast that there is within 2 mm of it:
    of a uniform nodule that is half of its maximum; a part-solid one ends where its ground glass is half of
    itself, as readers measure it. Holes within belong to it.

    Args:
        contrast: (H, W) HU above the lung.
        near: (H, W) where the nodule may be.
        drawn: (H, W) its mask, of some pixels at least: taken where less than `SEEN` of it can be seen.
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
    limit = np.maximum(around / 2, max(LEAST, OVER_NOISE * noise))
    inside = binary_fill_holes(_largest((values >= limit) & near, drawn))
    if (inside & drawn).sum() < SEEN * drawn.sum():
        inside, limit = drawn, np.where(drawn, -np.inf, np.inf)  # whole pixels
    down, right = np.gradient(values)
    share = np.clip(0.5 + (values - limit) / np.maximum(np.hypot(down, right), 1), 0, 1)
    cut = binary_dilation(inside) & ~binary_erosion(inside)
    area = inside[~cut].sum() + share[cut].sum()
    points = (np.argwhere(inside) + 0.5) / fine - 0.5 + corner
    return Outline(points, 2 * float(np.sqrt(area / np.pi)) * point_mm, point_mm)


def _box(near: NDArray[np.bool_], border: int = 2) -> tuple[slice, slice]:
    """What holds all of it, and a border."""
    rows, columns = (np.flatnonzero(near.any(axis=axis)) for axis in (1, 0))
    first, second = (slice(max(int(p[0]) - border, 0), int(p[-1]) + border + 1) for p in (rows, columns))
    return first, second


def _largest(found: NDArray[np.bool_], drawn: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The piece that has most of ``drawn``; nothing where none has any of it."""
    pieces, count = label(found)
    share = np.bincount(pieces[drawn], minlength=count + 1)[1:]
    if not share.any():
        return np.zeros_like(found)
    return pieces == 1 + int(share.argmax())


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
