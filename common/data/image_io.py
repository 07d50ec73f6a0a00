"""Picture files (8-bit and 16-bit gray PNG, JPEG, TIFF, BMP), and the slices and masks of samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image
from tqdm import tqdm

from common.data.hu_calibration import GrayValues, calibrate, nominal_range
from common.data.mask_values import check_scale, structure_mask_of
from common.data.samples import PICTURE_SUFFIXES, READ, Sample, has_suffix, is_volume, orient
from common.data.volume_io import Volume, check_beside_picture, check_same_place, open_volume
from common.errors import UserError, read_errors

EIGHT_BITS = (0.0, 255.0)
SIXTEEN_BITS = (0.0, 65535.0)
_SIXTEEN_BIT_MODES = ("I;16", "I;16B", "I;16L", "I;16N", "I")


def read_picture(path: Path) -> tuple[np.ndarray, tuple[float, float] | None]:
    """The gray values (H, W) of a picture and its full range; None for real or signed values that may be HU.

    RGB, RGBA and palette pictures are accepted where they are gray in truth (equal channels, opaque).

    Raises:
        UserError: unreadable, of several pages, or in colour.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.fromarray(np.array([[0, 128, 255]], np.uint8)).save(Path(folder) / "slice.png")
        ...     values, limits = read_picture(Path(folder) / "slice.png")
        >>> values.tolist(), limits
        ([[0, 128, 255]], (0.0, 255.0))
    """
    with _opened(path) as picture:
        if picture.mode == "L":
            return np.asarray(picture), EIGHT_BITS
        if picture.mode == "F" or picture.mode in _SIXTEEN_BIT_MODES:
            values = np.asarray(picture)
            if picture.mode == "F" and not np.isfinite(values).all():
                raise UserError(f"{path}: holds NaN or infinite values; repair or remove the picture")
            signed = picture.mode == "F" or values.min() < 0
            return values, nominal_range(values) if signed else SIXTEEN_BITS
        return _gray(picture, path), EIGHT_BITS


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The loaded picture of a file of one page.

    Raises:
        UserError: an unknown format, unreadable, or several pages.
    """
    if not has_suffix(path, PICTURE_SUFFIXES):
        what = path.suffix or path.name
        raise UserError(f"{path}: {what} is not supported; convert it to NIfTI or PNG ({READ} are read)")
    with read_errors(path), Image.open(path) as picture:
        pages = getattr(picture, "n_frames", 1)
        if pages > 1:
            raise UserError(
                f"{path}: holds {pages} pages; save each as a picture of its own, or all as a NIfTI volume"
            )
        picture.load()
        yield picture


def read_label_picture(path: Path) -> np.ndarray:
    """Reads the labels (H, W) of a mask picture; of a palette picture the indices, not the colours.

    Raises:
        UserError: unreadable, of several pages, or in colour.
    """
    with _opened(path) as picture:
        if picture.mode in ("L", "P", "F", *_SIXTEEN_BIT_MODES):
            return np.asarray(picture)
        if picture.mode == "1":
            return np.asarray(picture).astype(np.uint8)
        return _gray(picture, path)


def _gray(picture: Image.Image, path: Path) -> np.ndarray:
    """One channel of a picture whose colour channels are equal and whose alpha, if any, is opaque."""
    mode = picture.mode
    if mode not in ("1", "P", "LA", "PA", "RGB", "RGBA", "RGBX"):
        raise UserError(f"{path}: picture mode {mode} is not supported; save it as 8-bit or 16-bit gray PNG")
    channels = np.asarray(picture.convert("RGBA"))  # (H, W, 4)
    gray = (channels[..., 0] == channels[..., 1]).all() and (channels[..., 1] == channels[..., 2]).all()
    if not gray or (channels[..., 3] != 255).any():
        what = "transparent" if gray else "in colour"
        raise UserError(f"{path}: the picture is {what} (mode {mode}); save it as 8-bit or 16-bit gray PNG")
    return channels[..., 0]


class Pixels(NamedTuple):
    """Gray values of a slice: float32 (H, W), whether they are HU, else what is black and white."""

    values: np.ndarray
    is_hu: bool
    source_range: tuple[float, float]


def read_pixels(sample: Sample) -> Pixels:
    """The sample's CT slice, upright, with the meaning of its values.

    Raises:
        UserError: unreadable, in colour, 4-D, non-finite or constant, or no HU though it looks like a CT.
    """
    if is_volume(sample.image):
        volume = open_volume(sample.image)
        values = axial_slice(volume, sample.index, sample.image)
        if values.size and values.min() == values.max():
            check_varied(volume.array, sample.image)
    else:
        values, own = read_picture(sample.image)
        check_varied(values, sample.image)
    settings = (sample.hu_offset, sample.source_range, sample.image)
    if is_volume(sample.image):
        calibration = volume.calibrate(*settings)
    else:
        calibration = calibrate(GrayValues(values), own, *settings)
    gray = values.astype(np.float32) + np.float32(calibration.offset)
    return Pixels(orient(gray, sample.orientation), calibration.is_hu, calibration.source_range)


def check_varied(values: np.ndarray, path: Path) -> None:
    """Refuses a constant image.

    Raises:
        UserError: every value is the same.
    """
    if values.size and values.min() == values.max():
        raise UserError(f"{path}: every pixel has the same value; replace or remove the image")


def read_mask(sample: Sample) -> np.ndarray:
    """The sample's lesion mask, uint8 {0, 1} (H, W), upright.

    Raises:
        UserError: no mask, unreadable, in colour, or with values that its convention does not know.
    """
    if sample.mask is None:
        raise UserError(f"{sample.image}: has no mask; this model needs image and mask pairs")
    if is_volume(sample.mask):
        volume = open_volume(sample.mask)
        labels = axial_slice(volume, sample.index, sample.mask)
        highest = volume.values.highest if volume.values else float(volume.array.max())
    else:
        labels = read_label_picture(sample.mask)
        highest = float(labels.max())
    threshold = sample.mask_threshold
    check_scale(highest, labels, threshold, sample.mask, sample.mask_ignored)
    mask = structure_mask_of(
        labels, sample.mask, threshold, sample.mask_ignored, sample.mask_values, sample.mask_background
    )
    return orient(mask, sample.orientation)


def axial_slice(volume: Volume, index: int | None, path: Path) -> np.ndarray:
    """Slice ``index`` (H, W) of a volume; a volume of one slice needs no index.

    Raises:
        UserError: no such slice.
    """
    if index is None and volume.depth != 1:
        raise UserError(f"{path}: holds {volume.depth} slices where one was expected; list it as a volume")
    if not 0 <= (index or 0) < volume.depth:
        raise UserError(
            f"{path}: has {volume.depth} slices but its partner has more; image and mask must fit"
        )
    return volume.array[:, :, index or 0]


S = TypeVar("S")
T = TypeVar("T")
# After this many bad files the rest is not worth the wait.
MOST_PROBLEMS = 5


class Pair(NamedTuple):
    """A checked slice: gray values (H, W), mask uint8 {0, 1} (H, W); no mask in unconditional sets."""

    pixels: Pixels
    mask: np.ndarray | None


def read_pair(sample: Sample) -> Pair:
    """Reads image and mask, and checks that they fit.

    Raises:
        UserError: anything that `common.data.image_io` refuses, or sizes that differ.
    """
    pixels = read_pixels(sample)
    if sample.mask is None:
        return Pair(pixels, None)
    check_place(sample.image, sample.mask)
    mask = read_mask(sample)
    if mask.shape != pixels.values.shape:
        raise UserError(
            f"{sample.mask}: the mask is {size_text(mask.shape)} but {sample.image.name} is "
            f"{size_text(pixels.values.shape)} (rows x columns); export both at the same size"
        )
    return Pair(pixels, mask)


def check_place(image: Path, mask: Path) -> None:
    """Refuses a mask whose voxels lie elsewhere than the image's, see `common.data.volume_io`.

    Pictures have no place: of two pictures only the sizes can be compared, which this does not do.

    Raises:
        UserError: names both files and both geometries.
    """
    volumes = [path for path in (image, mask) if is_volume(path)]
    if len(volumes) == 2:
        check_same_place(*(open_volume(path).grid(path) for path in volumes))
    elif volumes:
        check_beside_picture(open_volume(volumes[0]).grid(volumes[0]), mask if volumes[0] == image else image)


def for_each(samples: Sequence[S], action: Callable[[S], T], title: str) -> list[T]:
    """``action`` of every sample, with a progress bar; goes on after a bad file to tell how many there are.

    Raises:
        UserError: the first bad file, with the number of others (it stops counting at five).
    """
    results: list[T] = []
    problems: list[str] = []
    for sample in tqdm(samples, desc=title, unit="slice", disable=None, leave=False):
        try:
            results.append(action(sample))
        except UserError as error:
            problems += [str(error)] if str(error) not in problems else []
            if len(problems) == MOST_PROBLEMS:
                break
    if len(problems) > 1:
        least = "at least " if len(problems) == MOST_PROBLEMS else ""
        others = f"{least}{len(problems) - 1} more bad {'file' if len(problems) == 2 else 'files'}"
        raise UserError(f"{problems[0]} ({others})")
    if problems:
        raise UserError(problems[0])
    return results


def size_text(shape: Sequence[int]) -> str:
    """``512 x 400``, for messages."""
    return " x ".join(str(extent) for extent in shape)
