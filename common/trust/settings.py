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
        hu_offset: what to add to values that are no HU, see `common.data.intensity.offset_to_hu`.
        patient_pattern: see `common.data.patients.whose`; None for the field's ways of naming.
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
    hu_offset: float | None = None

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
            patient_pattern=info.get("split", {}).get("patient_pattern"),
            info=info,
        )
        return replace(settings, **changes)

    @classmethod
    def of_any_generator(
        cls,
        window: Window | None = None,
        image_size: int | None = None,
    ) -> ReadingSettings:
        """The settings for images of a generator that is no bundle: padded to squares, nothing else changed.

        Args:
            window: HU that become -1 and 1; None for ``lung``.
            image_size: S in pixels; None for `DEFAULT_SIZE`.
        Raises:
            UserError: a size that is none.
        """
        return cls(
            image_size=DEFAULT_SIZE if image_size is None else image_size,
            window=window or WINDOWS["lung"],
            fit="pad",
        )


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
