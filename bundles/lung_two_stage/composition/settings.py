"""What a set of composites is asked to be."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bundles.lung_two_stage.banks import NoduleBank, SliceBank
from bundles.lung_two_stage.composition.formats import Format
from bundles.lung_two_stage.composition.planning import Rules
from bundles.lung_two_stage.extraction.presence import PresenceMap
from common.errors import UserError
from common.files import read_json
from common.numbers import whole_number

REPORT = "generation.json"
"""Beside a bank that a model drew from."""
EVEN = "even"
"""Stands for the presence map that knows no place better than another."""
MOST_NODULES = 16
BLENDING = "opaque rims"
"""How nodules are laid on slices: a set that was begun another way is not gone on with."""
_LEAST = {"groups": 1, "nodules_per_group": 1, "attempts": 1, "per_shard": 1, "seed": 0, "num_workers": 0}


@dataclass(frozen=True)
class Settings:
    """Sources, rules and form of a set of composites.

    Args:
        nodules_dir: a `NoduleBank`.
        normals_dir: a `SliceBank` without nodules.
        output_dir: gets the shards; the same settings go on with what is there.
        presence_file: a `PresenceMap`; None for places that are all alike.
        categories_file: JSON that lists under ``categories`` what mask values 1, 2, ... stand for, as the
            extraction leaves it; None for the nodules' own categories in alphabetical order.
        count: composites kept of all combinations, those farthest from the parenchyma's edge; None for 40 %.
        groups: nodule groups; each meets each normal.
        nodules_per_group: at most.
        attempts: draws for a nodule's place before the combination is given up.
        per_shard: composites in a tar file.
        file_format, window: see `bundles.lung_two_stage.composition.formats.Format`.
        seed: of all draws.
        num_workers: processes that render; 0 for this one.
    Raises:
        UserError: a number is none.
    """

    nodules_dir: str
    normals_dir: str
    output_dir: str
    presence_file: str | None = None
    categories_file: str | None = None
    count: int | None = None
    groups: int = 5000
    nodules_per_group: int = 3
    attempts: int = 50
    per_shard: int = 1000
    file_format: str = "npy"
    window: str | tuple[float, float] | None = None
    seed: int = 0
    num_workers: int = 0

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            object.__setattr__(self, name, whole_number(name, getattr(self, name), least))
        if self.count is not None:
            object.__setattr__(self, "count", whole_number("count", self.count, least=1))
        if self.nodules_per_group > MOST_NODULES:
            raise UserError(f"nodules_per_group {self.nodules_per_group}: give at most {MOST_NODULES}")
        if isinstance(self.window, Sequence) and not isinstance(self.window, str):
            object.__setattr__(self, "window", tuple(self.window))  # hashable
        _ = self.form

    @property
    def folder(self) -> Path:
        """Where the shards go."""
        return Path(self.output_dir)

    @property
    def form(self) -> Format:
        """Of the files in the shards."""
        form = Format(self.file_format, self.window)
        _ = form.greys  # a bad window is refused here
        return form

    @property
    def rules(self) -> Rules:
        """How composites are drawn and chosen."""
        return Rules(self.count, self.groups, self.nodules_per_group, self.attempts, self.seed)

    def banks(self) -> tuple[NoduleBank, SliceBank]:
        """Nodules and normals, on disk.

        Raises:
            UserError: one is missing or damaged.
        """
        return NoduleBank.load(self.nodules_dir, mapped=True), SliceBank.load(self.normals_dir, mapped=True)

    def models(self) -> dict[str, str | None]:
        """SHA-256 of the models that drew nodules and normals, as their banks tell; None where none did."""
        reports = {"nodules": Path(self.nodules_dir, REPORT), "normals": Path(self.normals_dir, REPORT)}
        return {
            layer: read_json(path).get("model_sha256") if path.is_file() else None
            for layer, path in reports.items()
        }

    def presence(self) -> PresenceMap:
        """The probability of a nodule at each place of a lung.

        Raises:
            UserError: the file is missing or damaged.
        """
        return (
            PresenceMap.from_points(())
            if self.presence_file is None
            else PresenceMap.load(self.presence_file)
        )

    def categories(self) -> list[str]:
        """Names of the mask values in their order, where they are given.

        Raises:
            UserError: the file is missing, or lists no names.
        """
        content = {"categories": []} if self.categories_file is None else read_json(self.categories_file)
        names = content.get("categories") if isinstance(content, dict) else None
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise UserError(f"{self.categories_file}: lists no names under categories; give extraction.json")
        return names

    def asked(self) -> dict[str, Any]:
        """All that the bytes of the result depend on, as plain JSON; the sources by their content."""
        greys = self.form.greys
        return {
            **asdict(self.rules),
            "blending": BLENDING,
            "per_shard": self.per_shard,
            "format": self.file_format,
            "window_hu": None if greys is None else [greys.lower, greys.upper],
            "nodules": _content(self.nodules_dir, ("hu.npy", "alpha.npy", "records.json")),
            "normals": _content(self.normals_dir, ("hu.npy", "lung.npy", "records.json")),
            "categories": self.categories(),
            "presence": EVEN if self.presence_file is None else _content(self.presence_file),
        }


def _content(place: str | os.PathLike[str], names: Sequence[str] = ("",)) -> str:
    """SHA-256 of the files' own ones."""
    whole = hashlib.sha256()
    for name in names:
        with Path(place, name).open("rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()
