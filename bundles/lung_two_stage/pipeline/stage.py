"""One stage of the chain: a command of this bundle, what it reads and what it writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from common.errors import UserError
from common.tuning.process import bundle_command

RESUME = "resume"
SCANS, BANK = ("dataset_dir", "normals_dir"), "bank_dir"
FOLDER = "{work_dir}"


@dataclass(frozen=True)
class Stage:
    """A command ``python -m monai.bundle run RUN`` with a config, its overlays and settings.

    Args:
        name: of the stage, unique in the chain.
        run: the config's list to run, e.g. ``training``.
        config: names of files in ``configs/`` without suffix: one, then its overlays.
        writes: the folder below the chain's that belongs to this stage alone.
        after: names of the stages whose folders it reads.
        settings: overrides of its own; ``{work_dir}`` in them stands for the chain's folder.
    """

    name: str
    run: str
    config: Sequence[str]
    writes: str
    after: Sequence[str] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)

    def files(self, configs: Path) -> list[Path]:
        """The config and its overlays.

        Raises:
            UserError: one of them is not there.
        """
        files = [configs / f"{name}.yaml" for name in self.config]
        missing = [path for path in files if not path.is_file()]
        if missing:
            raise UserError(f"{missing[0]}: stage {self.name} needs this config; correct its name")
        return files

    def overrides(self, configs: Path, shared: Mapping[str, Any]) -> dict[str, Any]:
        """The settings of all stages that this one's config knows, then its own."""
        known: set[str] = set()
        for path in self.files(configs):
            known |= set(ConfigParser.load_config_file(str(path)))
        if BANK in known or SCANS[0] not in known:  # it reads another stage's banks, not the scans
            shared = {key: value for key, value in shared.items() if key not in SCANS}
        own = {key: value for key, value in shared.items() if key in known and value is not None}
        goes_on = {RESUME: "true"} if RESUME in known else {}
        return {**own, **goes_on, **{key: _filled(value, shared) for key, value in self.settings.items()}}

    def command(self, configs: Path, shared: Mapping[str, Any]) -> list[str]:
        """The command line; a begun training goes on."""
        return bundle_command(self.run, self.files(configs), self.overrides(configs, shared))


def stages_of(described: Mapping[str, Mapping[str, Any] | None]) -> list[Stage]:
    """Stages as a config describes them, by name, in their order.

    A stage that an overlay has set to null is left out, and no other one reads it.

    Raises:
        UserError: a stage comes before one that it reads, or two write to one folder.
    """
    stages = [
        Stage(
            name,
            str(entry["run"]),
            _listed(entry["config"]),
            str(entry["writes"]),
            [other for other in _listed(entry.get("after", ())) if described.get(other, entry) is not None],
            dict(entry.get("settings", {})),
        )
        for name, entry in described.items()
        if entry is not None
    ]
    for number, stage in enumerate(stages):
        earlier = stages[:number]
        unknown = sorted(set(stage.after) - {other.name for other in earlier})
        if unknown:
            raise UserError(f"stage {stage.name}: there is no stage {unknown[0]} before it")
        if stage.writes in {other.writes for other in earlier}:
            raise UserError(f"stage {stage.name}: another one writes to {stage.writes} too")
    return stages


def _filled(value: Any, shared: Mapping[str, Any]) -> Any:
    """The value with the chain's folder in its place."""
    return value.replace(FOLDER, str(shared["work_dir"])) if isinstance(value, str) else value


def _listed(names: str | Sequence[str]) -> list[str]:
    return [names] if isinstance(names, str) else list(names)
