"""How a report reads images: as a trained model's own were read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from common.data.intensity import WINDOWS, Window, window_by_name
from common.data.standardise import Standardiser
from common.errors import UserError

IMAGES, PAIRS, STRUCTURES = "images", "pairs", "structures"
SLICES = ("auto", "all", "labelled", "central")
DEFAULT_SIZE = 128


@dataclass(frozen=True)
class ReadingSettings:
    """What becomes of a file on its way to a network.

    Attributes:
        image_size: S in pixels.
        window: HU that become -1 and 1.
        fit: how slices become square, see `common.data.resizing.fit_square`.
        source_range: black and white of files that are not HU; None for their type's full range.
        patient_pattern: see `common.data.patients.patient_of`; None for what suits the kind of file.
        slices: of volumes: ``labelled`` ones, the ``central`` one, or ``all``; ``auto`` takes the labelled
            ones where there are labels, else those that the data set's layout gives.
        kind: ``images``, ``pairs`` (with lesion masks) or ``structures`` (with label maps of the heart).
        standardiser: brings 8-bit slices to the look that the model learned.
        info: what stands beside the model, for ``structures``: geometry, intensities, classes.
    Raises:
        UserError: an unknown choice of slices, or a size that is none.
    """

    image_size: int = DEFAULT_SIZE
    window: Window = WINDOWS["lung"]
    fit: str = "stretch"
    source_range: tuple[float, float] | None = None
    patient_pattern: str | None = None
    slices: str = "auto"
    kind: str = PAIRS
    standardiser: Standardiser | None = None
    info: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.slices not in SLICES:
            raise UserError(f"slices {self.slices!r} is unknown; choose {', '.join(SLICES)}")
        if self.image_size < 1:
            raise UserError(f"image_size {self.image_size}: give the side of the slices in pixels")

    @classmethod
    def of(cls, info: Mapping[str, Any], **changes: Any) -> ReadingSettings:
        """The settings of a model's training.

        Args:
            info: what stands beside the model (`common.inference.models.model_info`); empty for the defaults.
            changes: attributes that are to be others.
        Raises:
            UserError: the model's images are not square.
        """
        state = info.get("standardiser")
        settings = cls(
            image_size=_side(info.get("image_size", DEFAULT_SIZE)),
            window=window_by_name(info.get("window_hu", "lung")),
            fit=info.get("fit", "stretch"),
            kind=_kind(info),
            slices="all" if info.get("layer") == "nodules" else "auto",  # one drawn without nodule counts too
            standardiser=None if state is None else Standardiser.from_state(state),
            info=info,
        )
        return replace(settings, **changes)


def _kind(info: Mapping[str, Any]) -> str:
    """What the model's data set was, by entries that only such a set writes."""
    if "intensity" in info:
        return STRUCTURES
    if "empty_masks" in info:
        return PAIRS
    return IMAGES if "fit" in info or "layer" in info else PAIRS  # older pairs said neither


def _side(size: Any) -> int:
    """``S`` or ``[S, S]`` as S."""
    sides = {int(side) for side in (size if isinstance(size, list | tuple) else [size])}
    if len(sides) != 1:
        raise UserError(f"image_size {size}: the trust report takes models of square images")
    return sides.pop()
