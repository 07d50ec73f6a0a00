"""Structures of the heart: the classes of a model, and the meaning of the label values in files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from torch import Tensor

from common.errors import UserError

# Values 1..7 of label files, in this order.
STRUCTURES = ("LV", "RV", "LA", "RA", "Myo", "Ao", "PA")
# Of MM-WHS 2017: Zhuang, Challenges and methodologies of fully automatic whole heart segmentation.
MMWHS_VALUES = {"Myo": 205, "LA": 420, "LV": 500, "RA": 550, "RV": 600, "Ao": 820, "PA": 850}
WHOLE_HEART = "whole_heart"
"""The class of all structures together."""
BACKGROUND = "background"
ALL = "all"
# The parts of a coarse label: tools that segment "the heart" exclude the great vessels.
MERGED = ("LV", "RV", "LA", "RA", "Myo")
# 421 stands in one of the published MM-WHS label files where 420 is meant.
DEFAULT_MAP: dict[int, str] = {
    **{value: name for value, name in enumerate(STRUCTURES, start=1)},
    **{value: name for name, value in MMWHS_VALUES.items()},
    421: "LA",
}
_NAMES = {name.lower(): name for name in (*STRUCTURES, WHOLE_HEART, BACKGROUND, ALL)}

Labels = str | int | Sequence[str | int]
LabelMap = Mapping[Any, Any] | str


class LabelSet:
    """The classes of a model, and the mapping from label values of a file to classes.

    Args:
        labels: ``all`` (the seven structures), ``whole_heart`` (all in one class), or one or several names
            (in any case) or MM-WHS values: ``"LV"``, ``"LV,Myo"``, ``["LV", 205]``.
        label_map: names of the values of a file, as a dict ``{1: "whole_heart", 2: "Ao"}`` or its text; a
            name may be ``background``. None for `DEFAULT_MAP`: 1..7 in the order of `STRUCTURES`, and the
            values of MM-WHS.
        coarse: whether to add a class ``whole_heart`` for labels that do not distinguish the structures.

    Attributes:
        classes: names in the order of `STRUCTURES`, ``whole_heart`` last; class ``k`` is ``classes[k - 1]``,
            0 is background.
        label_map: file value to name; None if none was given.
    Raises:
        UserError: an unknown name or value, or no valid map.

    Example:
        >>> labels = LabelSet("LV,Myo")
        >>> labels.classes
        ('LV', 'Myo')
        >>> labels.table([0, 205, 500, 600], "heart.nii.gz").tolist()
        [0, 2, 1, 0]
    """

    def __init__(self, labels: Labels = ALL, label_map: LabelMap | None = None, coarse: bool = False) -> None:
        chosen = _selected(labels) | ({WHOLE_HEART} if coarse else set())
        self.classes = tuple(name for name in (*STRUCTURES, WHOLE_HEART) if name in chosen)
        self.label_map = None if label_map is None else parsed_map(label_map)

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> LabelSet:
        """Builds the set from its `state`."""
        return cls(state["classes"], state["label_map"])

    def state(self) -> dict[str, Any]:
        """The set as plain JSON, for the metadata of a model."""
        table = self.label_map
        return {
            "classes": list(self.classes),
            "label_map": None if table is None else {str(value): name for value, name in table.items()},
        }

    def with_map(self, label_map: LabelMap | None) -> LabelSet:
        """The same classes for files with another label map."""
        return LabelSet(self.classes, label_map)

    def table(self, values: Sequence[int], path: Path | str) -> np.ndarray:
        """The class of each value of a file: uint8 (len(values),), 0 for background.

        A structure has its own class where the model has it, else ``whole_heart`` where the model has that,
        else background.

        Args:
            values: the label values of a file, in any order.
            path: the file, for the error.
        Raises:
            UserError: a value that is not in the map, or one of ``whole_heart`` where that is no class.
        """
        meanings = self._meanings(values, path)
        if WHOLE_HEART in meanings and WHOLE_HEART not in self.classes:
            value = values[meanings.index(WHOLE_HEART)]
            raise UserError(
                f"{path}: value {value} means whole_heart, which is none of {', '.join(self.classes)}; "
                "use --labels whole_heart, or train with coarse labels"
            )
        return np.array([self._class_of(name) for name in meanings], dtype=np.uint8)

    def merged(self) -> np.ndarray:
        """A table from class to class, uint8 (K + 1,): chambers and myocardium become ``whole_heart``.

        Raises:
            UserError: ``whole_heart`` is no class.
        """
        if WHOLE_HEART not in self.classes:
            raise UserError("coarse labels need the class whole_heart; set coarse above 0")
        coarse = self.classes.index(WHOLE_HEART) + 1
        classes = [coarse if name in MERGED else index for index, name in enumerate(self.classes, start=1)]
        return np.array([0, *classes], dtype=np.uint8)

    def _class_of(self, name: str) -> int:
        if name in self.classes:
            return self.classes.index(name) + 1
        heart = name != BACKGROUND and WHOLE_HEART in self.classes
        return self.classes.index(WHOLE_HEART) + 1 if heart else 0

    def _meanings(self, values: Sequence[int], path: Path | str) -> list[str]:
        known = {0: BACKGROUND, **(DEFAULT_MAP if self.label_map is None else self.label_map)}
        unknown = [str(int(value)) for value in values if int(value) not in known]
        if unknown:
            listed = ", ".join(unknown[:8]) + (", ..." if len(unknown) > 8 else "")
            what = (
                "no known structures and no map is given"
                if self.label_map is None
                else "not in the label map (a value may mean background)"
            )
            raise UserError(
                f"{path}: label values {listed} are {what}; give --label_map '{{VALUE: NAME, ...}}' "
                f"with names of {', '.join((*STRUCTURES, WHOLE_HEART))}"
            )
        return [known[int(value)] for value in values]


def parsed_map(label_map: LabelMap) -> dict[int, str]:
    """A label map as {value: canonical name}, sorted by value.

    Args:
        label_map: a dict with numbers (or their text) as keys, or its text.
    Raises:
        UserError: not a map, an unknown name, or a key that is no whole number.

    Example:
        >>> parsed_map("{2: ao, 1: whole_heart}")
        {1: 'whole_heart', 2: 'Ao'}
    """
    table = _read_text(label_map) if isinstance(label_map, str) else label_map
    if not isinstance(table, Mapping) or not table:
        raise UserError(f"label_map {label_map!r}: give {{VALUE: NAME, ...}}, such as {{1: LV, 2: Ao}}")
    return {value: table_name for value, table_name in sorted(_entry(*pair) for pair in table.items())}


def _entry(value: Any, name: Any) -> tuple[int, str]:
    try:
        number = int(str(value))
    except ValueError as error:
        raise UserError(f"label_map: {value!r} is no label value; give {{VALUE: NAME, ...}}") from error
    canonical = BACKGROUND if name is None else _NAMES.get(str(name).strip().lower())
    if canonical is None or canonical == ALL:
        raise UserError(f"label_map: {name!r} is unknown; {_known((*STRUCTURES, WHOLE_HEART, BACKGROUND))}")
    return number, canonical


def _read_text(text: str) -> Any:
    """Parses the text as YAML; braces, and blanks after colons, may be missing."""
    try:
        return yaml.safe_load("{" + text.strip().strip("{}").replace(":", ": ") + "}")
    except yaml.YAMLError as error:
        raise UserError(f"label_map {text!r} cannot be read; write '{{1: LV, 2: Ao}}'") from error


def _selected(labels: Labels) -> set[str]:
    parts = labels.split(",") if isinstance(labels, str) else [labels] if isinstance(labels, int) else labels
    names = {_structure(part) for part in parts if str(part).strip()}
    if not names:
        raise UserError(f"labels {labels!r}: nothing selected; {_known((ALL, *STRUCTURES, WHOLE_HEART))}")
    return names - {ALL} | (set(STRUCTURES) if ALL in names else set())


def _structure(label: str | int) -> str:
    """The canonical name of a name or MM-WHS value."""
    text = str(label).strip(" '\"[]()")
    by_value = {str(value): name for name, value in MMWHS_VALUES.items()}
    name = by_value.get(text) or _NAMES.get(text.lower())
    if name is None or name == BACKGROUND:
        values = ", ".join(f"{name} {value}" for name, value in MMWHS_VALUES.items())
        raise UserError(
            f"labels: {text!r} is unknown; {_known((ALL, *STRUCTURES, WHOLE_HEART))}, or a value ({values})"
        )
    return name


def _known(names: Sequence[str]) -> str:
    return f"choose from {', '.join(names)}"


SMALLEST_SHARE = 1 / 1024
"""Share of a slice's pixels; a smaller structure is a sliver of its rim (64 pixels at 256 x 256)."""


def is_condition_image(labels: Tensor) -> bool:
    """Whether labels (N, C, H, W) are images in [-1, 1]; masks and class indices are never negative."""
    return bool((labels < 0).any())


def class_count(labels: Tensor) -> int:
    """The highest class index in labels (N, C, H, W); at most 1 for masks and condition images."""
    return int(labels.max().round()) if labels.numel() else 0


def structure_mask(labels: Tensor, index: int) -> Tensor:
    """The mask of a class: (N, 1, H, W) class indices -> (N, 1, H, W) bool.

    The mask is empty in slices in which the class covers less than `SMALLEST_SHARE`.

    Example:
        >>> import torch
        >>> structure_mask(torch.tensor([[[[0.0, 2.0], [2.0, 1.0]]]]), 2)[0, 0].tolist()
        [[False, True], [True, False]]
    """
    mask = labels[:, :1].round() == index
    share = mask.double().mean((2, 3), keepdim=True)  # (N, 1, 1, 1)
    return mask & (share >= SMALLEST_SHARE)
