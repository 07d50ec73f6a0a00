"""Whether the values of a CT file are HU, what is to be added to them, or what is black and white instead.

A CT of a body holds air or lung or fat, and soft tissue, at known HU. A file in which they lie elsewhere was
stored with an offset, rescaled twice, inverted or normalised. It is refused in one line that names the two
settings which say what its values are: ``hu_offset`` and ``source_range``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np

from common.data.intensity import EIGHT_BIT_WHITE
from common.errors import UserError

AIR = -1024.0
"""HU of air, or a little less: what lies below is a scanner's padding around its circle of view."""
NO_AIR = -1200.0
"""What is lower than this after an offset was added had no need of one."""
NOISE = 50.0
"""HU by which noise may lie below the values that stand for air in a file with an offset."""
LEAST_SPAN = 100.0
"""HU from the lowest to the highest value of any CT; normalised values span less."""
BODY = (-940.0, 700.0)
"""HU of lung, fat, soft tissue and blood with contrast agent."""
LEAST_BODY = 0.01
"""Share of the voxels in `BODY`; crops of a few voxels in a lung have more."""
BELOW_AIR, MOST_BELOW_AIR = -1100.0, 0.2
"""HU that noise in air seldom reaches, and the share of voxels below it; sharp kernels reach 0.04."""
DENSE, MOST_DENSE = 700.0, 0.25
"""HU of dense bone and metal, and the share of voxels above it; crops at a rib reach 0.07."""
SAMPLE_VOXELS = 2**16
FEWEST_VOXELS = 64
"""Shares of fewer voxels than this are not judged."""
LEAST_USED = 1 / 16
"""Share of its type's range that the brightest pixel of a picture must exceed; 12 bits in 16 do not."""


class GrayValues:
    """What the values of an image look like, for the question whether they are HU.

    Padding is what lies below -1024 (outside the scanner's circle of view), if it is one value only.

    Args:
        array: of any shape and number type.

    Attributes:
        lowest: the lowest value that is not below -1024 where others are above; padding has none of it.
        highest: the highest value.

    Example:
        >>> values = GrayValues(np.array([[-2000, -2000, 0], [40, 1064, 3000]]))
        >>> values.lowest, values.highest
        (0.0, 3000.0)
    """

    def __init__(self, array: np.ndarray) -> None:
        lowest, highest = array.min(), array.max()
        self._array, self._padding = array, lowest if lowest < AIR <= highest else None
        if self._padding is not None:
            lowest = array.min(where=array >= AIR, initial=highest)
        self.lowest, self.highest = float(lowest), float(highest)

    @cached_property
    def sample(self) -> np.ndarray:
        """An evenly spaced part of the voxels without padding: float32, sorted."""
        sides = max(1, sum(side > 1 for side in self._array.shape))
        step = max(1, round((self._array.size / SAMPLE_VOXELS) ** (1 / sides)))
        sample = self._array[(slice(None, None, step),) * self._array.ndim]
        sample = sample[sample != self._padding] if self._padding is not None else sample
        return np.sort(sample.astype(np.float32), axis=None)

    def share(self, lower: float, upper: float) -> float:
        """Returns the share of the voxels with values from ``lower`` to ``upper``."""
        first, last = np.searchsorted(self.sample, (lower, upper))
        return float(last - first) / max(len(self.sample), 1)


def nominal_range(array: np.ndarray) -> tuple[float, float] | None:
    """Returns black and white of values that are not HU, by their range; None for those that should be HU.

    Example:
        >>> [nominal_range(np.array(values)) for values in ([0.0, 0.7], [0, 90], [-9, 9])]
        [(0.0, 1.0), (0.0, 255.0), None]
    """
    lowest, highest = float(array.min()), float(array.max())
    if array.dtype.kind == "f" and lowest >= 0.0 and highest <= 1.0:
        return 0.0, 1.0
    return (0.0, EIGHT_BIT_WHITE) if lowest >= 0.0 and highest <= EIGHT_BIT_WHITE else None


class Calibration(NamedTuple):
    """The meaning of a file's values.

    Attributes:
        is_hu: whether they are HU, after ``offset`` is added.
        offset: what to add to them to get HU; 0 where they are none.
        source_range: black and white of values that are not HU.
    """

    is_hu: bool
    offset: float
    source_range: tuple[float, float]


def calibrate(
    values: GrayValues,
    own: tuple[float, float] | None,
    hu_offset: float | None,
    source_range: Sequence[float] | None,
    source: object,
    hint: str = "",
) -> Calibration:
    """Decides what the values of an image mean.

    Args:
        values: of the whole file.
        own: black and white of the file's type; None where the values should be HU.
        hu_offset: see `offset_to_hu`; 0 says that nothing is to be doubted.
        source_range: what is black and white in files that are not HU; None for ``own``.
        source: the file, for the message.
        hint: added to the message.
    Raises:
        UserError: the values cannot be HU, or they use a small part of the range of their type.

    Example:
        >>> twelve_bits = GrayValues(np.arange(4096))
        >>> calibrate(twelve_bits, None, None, [0, 4095], "a.nii.gz")
        Calibration(is_hu=False, offset=0.0, source_range=(0.0, 4095.0))
    """
    limits = None if source_range is None else check_source_range(source_range)
    if own is None:
        if limits is not None and hu_offset is None and find_problem(values):
            return Calibration(False, 0.0, limits)
        return Calibration(True, offset_to_hu(values, hu_offset, source, hint), (0.0, EIGHT_BIT_WHITE))
    if limits is None and hu_offset != 0:
        _check_used(values.highest, own[1], source)
    return Calibration(False, 0.0, limits or own)


def offset_to_hu(values: GrayValues, hu_offset: float | None, source: object, hint: str = "") -> float:
    """Returns what is to be added to stored values that pass for HU, so that they are.

    Args:
        values: of the whole file.
        hu_offset: what the user says is to be added (-1024); 0 says that they are HU; None that nothing is
            known. Files that are HU as they are stay so.
        source: the file, for the message.
        hint: added to the message.
    Raises:
        UserError: the values cannot be HU (see `find_problem`), or the offset is no number.

    Example:
        >>> stored = GrayValues(np.repeat([24, 180, 1064], 100))  # air, lung, tissue; each HU + 1024
        >>> offset_to_hu(stored, -1024, "a.nii.gz")
        -1024.0
    """
    problem = find_problem(values)
    if hu_offset is None:
        if problem is not None:
            raise UserError(f"{source}: {problem}; {_ADVICE}{hint}")
        return 0.0
    try:
        offset = float(hu_offset)
    except (TypeError, ValueError) as error:
        raise UserError(f"hu_offset {hu_offset}: give what to add to stored values, as -1024") from error
    if offset == 0:
        return 0.0
    shifted = find_problem(values, offset)
    if problem is None and (shifted or (values.lowest < 0 and values.lowest + offset < NO_AIR)):
        return 0.0
    if shifted is not None:
        raise UserError(f"{source}: with hu_offset {offset:g} it {shifted}; {_ADVICE}{hint}")
    return offset


_ADVICE = (
    "give what to add to get HU, as --hu_offset -1024, or --hu_offset 0 if they are HU, or what is black and "
    "white, as --source_range '[0, 4095]'"
)


def find_problem(values: GrayValues, offset: float = 0.0) -> str | None:
    """Returns why values cannot be HU once ``offset`` is added; None if they can.

    Example:
        >>> find_problem(GrayValues(np.linspace(-3, 3, 100)))
        'holds values from -3 to 3, which span too little for HU (normalised?)'
        >>> find_problem(GrayValues(np.linspace(-1000, 400, 100))) is None
        True
    """
    # What lies below -1024 is air, not padding, in a file to which something must be added.
    lowest = (float(values.sample[0]) if offset > 0 and len(values.sample) else values.lowest) + offset
    highest = values.highest + offset
    if lowest == highest:
        return None  # air, or nothing: constant files are refused elsewhere
    if highest - lowest < LEAST_SPAN:
        return f"holds values from {lowest:.4g} to {highest:.4g}, which span too little for HU (normalised?)"
    if lowest > -NOISE:
        return f"holds values up to {highest:g} but none of air, which lies from -1024 to 0 HU"
    if len(values.sample) < FEWEST_VOXELS:
        return None
    shares = {
        "below": values.share(-np.inf, BELOW_AIR - offset),
        "body": values.share(BODY[0] - offset, BODY[1] - offset),
        "dense": values.share(DENSE - offset, np.inf),
    }
    if shares["below"] > MOST_BELOW_AIR:
        return f"has {shares['below']:.0%} of its values below air (-1024 HU), as if rescaled twice"
    if shares["dense"] > MOST_DENSE:
        return f"has {shares['dense']:.0%} of its values above {DENSE:g} HU (an offset, or inverted?)"
    if shares["body"] < LEAST_BODY:
        return f"has no values of lung or tissue, which lie from {BODY[0]:g} to {BODY[1]:g} HU"
    return None


def check_source_range(source_range: Sequence[float]) -> tuple[float, float]:
    """Returns black and white of files that are not HU as two numbers.

    Raises:
        UserError: not two different numbers; of inverted files white is the lower one.

    Example:
        >>> check_source_range([0, 4095])
        (0.0, 4095.0)
    """
    try:
        lower, upper = (float(value) for value in source_range)
    except (TypeError, ValueError) as error:
        raise UserError(f"source_range {source_range}: give black and white, as [0, 4095]") from error
    if not np.isfinite([lower, upper]).all() or lower == upper:
        raise UserError(f"source_range {lower:g}..{upper:g}: black and white must be two different numbers")
    return lower, upper


def _check_used(highest: float, white: float, source: object) -> None:
    """Refuses values that use a small part of the range of their type, or more than it has."""
    if LEAST_USED * white < highest <= white:
        return
    common = [bits for bits in (255.0, 4095.0, 65535.0) if highest <= bits and bits != white]
    fitting = common[0] if common and common[0] < white else highest
    what = "so it would be nearly black" if highest <= white else "which is more than white"
    raise UserError(
        f"{source}: its values reach {highest:g} of {white:g}, {what}; give what is black and white, as "
        f"--source_range '[0, {fitting:g}]'"
    )
