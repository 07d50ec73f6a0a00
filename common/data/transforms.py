"""Slices to the network's square, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import affine_transform

from common.errors import UserError

FITS = ("pad", "crop", "stretch")


def resize_image(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear resize of a float (H, W) slice; shrinking averages over the covered area (no aliasing)."""
    return _resized(np.asarray(image, dtype=np.float32), height, width, Image.Resampling.BILINEAR)


def resize_mask(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """Nearest-neighbour resize of a uint8 (H, W) mask: no new labels appear."""
    return _resized(np.asarray(mask, dtype=np.uint8), height, width, Image.Resampling.NEAREST)


def fit_square(image: np.ndarray, size: int, fit: str = "pad") -> np.ndarray:
    """A float (H, W) slice in [0, 1] as a square (size, size), 0 (the window's lower end) where nothing is.

    Args:
        fit: ``pad`` takes the whole slice, ``crop`` its middle, both keep the aspect; ``stretch`` does not.
    Raises:
        UserError: no such way.
    """
    return _centred(resize_image(image, *_fitted(image.shape, size, fit)), (size, size), np.float32)


def fit_mask(mask: np.ndarray, size: int, fit: str = "pad") -> np.ndarray:
    """A uint8 (H, W) mask as `fit_square` has its image: (size, size), nearest pixels, 0 where nothing is."""
    return _centred(resize_mask(mask, *_fitted(mask.shape, size, fit)), (size, size), np.uint8)


def unfit_square(square: np.ndarray, height: int, width: int, fit: str = "pad") -> np.ndarray:
    """The way back of `fit_square`: float (S, S) to float32 (height, width), black where it was cropped."""
    fitted = _fitted((height, width), len(square), fit)
    return resize_image(_centred(square, fitted, np.float32), height, width)


def check_fit_name(fit: str) -> str:
    """The same, if there is such a way.

    Raises:
        UserError: names those that there are.
    """
    if fit not in FITS:
        raise UserError(f"fit {fit!r} is unknown; choose one of {', '.join(FITS)}")
    return fit


def _fitted(shape: tuple[int, ...], size: int, fit: str) -> tuple[int, int]:
    """The (h, w) that a slice of ``shape`` is resized to, before it is centred in the square."""
    if check_fit_name(fit) == "stretch":
        return size, size
    side = max(shape) if fit == "pad" else min(shape)
    height, width = (max(1, round(extent * size / side)) for extent in shape)
    return height, width


def _centred(array: np.ndarray, shape: tuple[int, int], dtype: npt.DTypeLike) -> np.ndarray:
    """The array (h, w) in the middle of zeros of ``shape``, or its middle where that is smaller."""
    if array.shape == shape:
        return array
    inside = array[_middle(array.shape[0], shape[0]), _middle(array.shape[1], shape[1])]
    result = np.zeros(shape, dtype)
    result[_middle(shape[0], inside.shape[0]), _middle(shape[1], inside.shape[1])] = inside
    return result


def _middle(extent: int, size: int) -> slice:
    """The middle ``size`` of ``extent`` places, all of fewer."""
    start = max(0, (extent - size) // 2)
    return slice(start, start + min(size, extent))


def _resized(array: np.ndarray, height: int, width: int, how: Image.Resampling) -> np.ndarray:
    if array.shape == (height, width):
        return array
    return np.asarray(Image.fromarray(array).resize((width, height), how))


@dataclass(frozen=True)
class AugmentationDraw:
    """The parameters of one visit: geometry shared by image and mask, gamma and gain for the image alone.

    ``shift`` is (rows, columns) as a share of the side, ``rotation`` in radians (counter-clockwise).
    """

    flip: bool = False
    shift: tuple[float, float] = (0.0, 0.0)
    scale: float = 1.0
    rotation: float = 0.0
    gamma: float = 1.0
    gain: float = 1.0


@dataclass(frozen=True)
class Augmentation:
    """The ranges that are drawn from.

    Args:
        flip: probability of a left-right flip. It mirrors anatomy: half of what a generator draws then has
            its heart at the right, which no more than one person in ten thousand has.
        shift: largest shift, as a share of the side.
        scale: largest relative change of size.
        rotation: largest rotation in degrees.
        gamma: largest change of the gray curve's exponent, on a log scale; 0 for none.
        gain: largest relative change of the gray values above the window's lower end.
    """

    flip: float = 0.0
    shift: float = 0.04
    scale: float = 0.06
    rotation: float = 6.0
    gamma: float = 0.0
    gain: float = 0.0

    def draw(self, random: np.random.Generator) -> AugmentationDraw:
        """Draws the parameters of one visit. The number of draws does not depend on the ranges."""
        flip, row, column, scale, rotation, gamma, gain = random.random(7)
        return AugmentationDraw(
            flip=bool(flip < self.flip),
            shift=(self.shift * _signed(row), self.shift * _signed(column)),
            scale=1.0 + self.scale * _signed(scale),
            rotation=float(np.deg2rad(self.rotation)) * _signed(rotation),
            gamma=float(np.exp(self.gamma * _signed(gamma))),
            gain=1.0 + self.gain * _signed(gain),
        )


LIGHT = Augmentation(gain=0.02)
"""What patients differ in anyway: how they lie and how large they are in the field of view; nothing mirrored.

A gain of 2 per cent is 28 HU at the upper end of a lung window, about what scanners differ by.
"""
FEW = 1000
"""Up to so many training slices ``auto`` augments: with more, patients bring the variety themselves."""


def augmentation(
    settings: Augmentation | Mapping[str, float] | str | None, slices: int
) -> Augmentation | None:
    """What a config's ``augment`` means for a training set.

    Args:
        settings: ``auto``: `LIGHT` for up to `FEW` slices, else nothing; ``light``; ``none`` or None; a
            mapping of `Augmentation` settings, or the object.
        slices: in the training set.
    Raises:
        UserError: another word, or a setting that there is not.
    """
    if isinstance(settings, Mapping):
        known = {field.name for field in fields(Augmentation)}
        if unknown := sorted(set(settings) - known):
            raise UserError(f"augment has no setting {unknown[0]!r}; it has {', '.join(sorted(known))}")
        return Augmentation(**settings)
    if settings is None or isinstance(settings, Augmentation):
        return settings
    choices = {"auto": LIGHT if slices <= FEW else None, "light": LIGHT, "none": None}
    if settings not in choices:
        raise UserError(f"augment {settings!r} is unknown; choose auto, light, none or a mapping of settings")
    return choices[settings]


def apply_to_image(image: np.ndarray, draw: AugmentationDraw) -> np.ndarray:
    """The augmented image: (H, W) float32 in [0, 1], bilinear, borders repeated."""
    moved = _moved(image, draw, interpolation=1)
    if draw.gamma != 1.0:
        moved = np.power(np.clip(moved, 0.0, 1.0), np.float32(draw.gamma))
    return moved if draw.gain == 1.0 else np.clip(moved * np.float32(draw.gain), 0.0, 1.0)


def apply_to_mask(mask: np.ndarray, draw: AugmentationDraw) -> np.ndarray:
    """The augmented mask: (H, W), nearest neighbour, the same geometry as the image."""
    return _moved(mask, draw, interpolation=0)


def _moved(array: np.ndarray, draw: AugmentationDraw, interpolation: int) -> np.ndarray:
    flipped = array[:, ::-1] if draw.flip else array
    if (draw.shift, draw.scale, draw.rotation) == ((0.0, 0.0), 1.0, 0.0):
        return np.ascontiguousarray(flipped)
    matrix, offset = _inverse_map(array.shape, draw)
    return affine_transform(
        flipped, matrix, offset=offset, order=interpolation, mode="nearest", prefilter=False
    )


def _inverse_map(shape: tuple[int, ...], draw: AugmentationDraw) -> tuple[np.ndarray, np.ndarray]:
    """Output pixel to input pixel: rotation and scale about the centre, then the shift."""
    cosine, sine = np.cos(draw.rotation) / draw.scale, np.sin(draw.rotation) / draw.scale
    matrix = np.array([[cosine, sine], [-sine, cosine]])
    centre = (np.array(shape, dtype=np.float64) - 1.0) / 2.0
    shift = np.array(draw.shift) * np.array(shape)
    return matrix, centre - matrix @ (centre + shift)


def _signed(uniform: float) -> float:
    """[0, 1) to [-1, 1)."""
    return 2.0 * float(uniform) - 1.0
