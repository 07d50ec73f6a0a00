"""Light augmentation: drawn once for image and mask, replayed from (seed, epoch, sample)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import affine_transform


@dataclass(frozen=True)
class AugmentationDraw:
    """The parameters of one visit: geometry shared by image and mask, gamma for the image alone.

    ``shift`` is (rows, columns) as a share of the side, ``rotation`` in radians (counter-clockwise).
    """

    flip: bool = False
    shift: tuple[float, float] = (0.0, 0.0)
    scale: float = 1.0
    rotation: float = 0.0
    gamma: float = 1.0


@dataclass(frozen=True)
class Augmentation:
    """The ranges that are drawn from.

    Args:
        flip: probability of a left-right flip (the heart then lies at the right: anatomy is mirrored).
        shift: largest shift, as a share of the side.
        scale: largest relative change of size.
        rotation: largest rotation in degrees.
        gamma: largest change of the gray curve's exponent, on a log scale; 0 for none.
    """

    flip: float = 0.5
    shift: float = 0.04
    scale: float = 0.06
    rotation: float = 6.0
    gamma: float = 0.0

    def draw(self, random: np.random.Generator) -> AugmentationDraw:
        """Draws the parameters of one visit. The number of draws does not depend on the ranges."""
        flip, row, column, scale, rotation, gamma = random.random(6)
        return AugmentationDraw(
            flip=bool(flip < self.flip),
            shift=(self.shift * _signed(row), self.shift * _signed(column)),
            scale=1.0 + self.scale * _signed(scale),
            rotation=float(np.deg2rad(self.rotation)) * _signed(rotation),
            gamma=float(np.exp(self.gamma * _signed(gamma))),
        )


def apply_to_image(image: np.ndarray, draw: AugmentationDraw) -> np.ndarray:
    """The augmented image: (H, W) float32 in [0, 1], bilinear, borders repeated."""
    moved = _moved(image, draw, interpolation=1)
    return moved if draw.gamma == 1.0 else np.power(np.clip(moved, 0.0, 1.0), np.float32(draw.gamma))


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
