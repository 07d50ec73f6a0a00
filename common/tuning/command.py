"""What ``scripts/tune.py`` does once its arguments are read."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from monai.bundle import ConfigParser

from common.errors import UserError
from common.paths import bundle_root
from common.tuning.lock import locked
from common.tuning.report import Row, table, write_overlay
from common.tuning.search import Search
from common.tuning.space import read_space
from common.tuning.trial import TrainingProcess, tidy

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

OVERLAY = "tuned.yaml"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """A search as asked for on the command line."""

    name: str  # of the bundle
    trials: int
    seed: int = 0
    output_dir: Path | None = None  # default bundles/NAME/tuning
    config_file: Sequence[Path] | None = None  # default bundles/NAME/configs/train.yaml
    overrides: Mapping[str, Any] = field(default_factory=dict)  # of every trial


def tune(settings: Settings) -> None:
    """Runs the search, prints its table and leaves the best values in ``tuned.yaml``.

    Raises:
        UserError: no such bundle, config or search space, or no trial gave a score.
    """
    bundle = Path(bundle_root(settings.name))
    folder = (settings.output_dir or bundle / "tuning").resolve()
    files = [path.resolve() for path in settings.config_file or [bundle / "configs" / "train.yaml"]]
    space = read_space(bundle / "search.yaml").fixed(settings.overrides)
    start = space.start(_config(files))
    overrides = {"seed": settings.seed, **settings.overrides}
    with locked(folder) as descriptor, terminable():
        train = TrainingProcess(files, [descriptor])
        recipe = ", ".join(map(str, files))
        search = Search(folder, space, train, start, overrides, settings.seed, recipe)
        try:
            search.run(settings.trials, lambda trial: _tell(search, trial, files))
        except KeyboardInterrupt:
            raise UserError(f"stopped; the same command goes on with the search in {folder}") from None
    best = search.best()
    print(table(_rows(search), best.number if best else None))
    if best is None:
        raise UserError(f"no trial gave a score; see {folder}/trial_*/training.log")
    _write(search, files)
    print(f"best values: {folder / OVERLAY}")


def _config(files: Sequence[Path]) -> dict[str, Any]:
    """The top level of the config files, merged as a run does."""
    for path in files:
        if not path.is_file():
            raise UserError(f"{path}: no such config; --config_file takes the training config, then overlays")
    return dict(ConfigParser.load_config_files([str(path) for path in files]))


def _tell(search: Search, trial: FrozenTrial, files: Sequence[Path]) -> None:
    tidy(search.trial_folder(trial.number))
    if trial.value is not None:
        logger.info(f"trial {trial.number}: score {trial.value:.4g}")
        _write(search, files)


def _write(search: Search, files: Sequence[Path]) -> None:
    best = search.best()
    if best is None:
        return
    path = search.folder / OVERLAY
    configs = ",".join(f"'{file}'" for file in [*files, path])
    notes = [
        f"The best of {len(search.ended())} trials: trial {best.number}, score {best.value:.4g}.",
        "Every trial: " + " ".join(f"--{key} {value}" for key, value in search.overrides.items()),
        f'Use: --config_file "[{configs}]"',
    ]
    write_overlay(path, search.values(best), notes)


def _rows(search: Search) -> list[Row]:
    names = {"COMPLETE": "", "PRUNED": "diverged", "FAIL": "failed"}
    return [(t.number, names[t.state.name], t.value, search.values(t)) for t in search.ended()]


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM acts as Ctrl-C does: the trial's process ends with the search."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    earlier = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, earlier)
