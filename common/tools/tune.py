"""What ``scripts/tune.py`` does once its arguments are read."""

from __future__ import annotations

import logging
import math
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, ModuleType
from typing import TYPE_CHECKING, Any

import yaml
from monai.bundle import ConfigParser
from tqdm import tqdm

from common.errors import UserError
from common.files import atomic_write, locked
from common.paths import bundle_root
from common.rng import make_rng
from common.tools.process import (
    LOG,
    Outcome,
    TrainingProcess,
    tidy,
)

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

logger = logging.getLogger(__name__)


Value = float | int | str | bool
DIGITS = 3  # significant ones of a drawn number: enough for a setting, and people can read it


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``, drawn evenly or evenly in their logarithm; whole where both are."""

    low: float
    high: float
    log: bool = False

    @property
    def whole(self) -> bool:
        """Whether the numbers are integers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def holds(self, value: Any) -> bool:
        """Whether ``value`` could be drawn."""
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return number and self.low <= value <= self.high


@dataclass(frozen=True)
class Choices:
    """One of some values."""

    values: tuple[Value, ...]

    def holds(self, value: Any) -> bool:
        """Whether ``value`` could be drawn."""
        return any(value == choice and type(value) is type(choice) for choice in self.values)


Parameter = Range | Choices


@dataclass(frozen=True)
class SearchSpace:
    """The searched config keys, and the settings that all trials share."""

    parameters: Mapping[str, Parameter]
    trial: Mapping[str, Value]

    def fixed(self, overrides: Mapping[str, Any]) -> SearchSpace:
        """The space without the keys that the user has set.

        Raises:
            UserError: nothing is left to search.
        """
        left = {key: value for key, value in self.parameters.items() if key not in overrides}
        if not left:
            raise UserError(
                f"nothing to search: {', '.join(self.parameters)} are all set on the command line"
            )
        return SearchSpace(left, self.trial)

    def start(self, config: Mapping[str, Any]) -> dict[str, Value]:
        """The config's own values of the searched keys, as far as they lie in the space: the first trial."""
        return {key: config[key] for key, found in self.parameters.items() if found.holds(config.get(key))}


def read_space(path: Path) -> SearchSpace:
    """Reads ``search.yaml``: ``parameters`` (``{low, high, log}`` or ``{choices}`` by config key), ``trial``.

    Raises:
        UserError: no such file, or something in it is not as it has to be.
    """
    content = _load(path)
    unknown = sorted(set(content) - {"parameters", "trial"})
    if unknown:
        raise UserError(f"{path}: unknown key '{unknown[0]}'; there are parameters and trial")
    found, trial = content.get("parameters"), content.get("trial") or {}
    if not isinstance(found, dict) or not found or not isinstance(trial, dict):
        raise UserError(
            f"{path}: needs parameters, a mapping of config keys to ranges (and trial, a mapping)"
        )
    return SearchSpace({str(key): _parameter(path, key, item) for key, item in found.items()}, trial)


def _load(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); the bundle has no search space"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: needs a mapping with parameters")
    return content


def _parameter(path: Path, key: str, item: Any) -> Parameter:
    where = f"{path}: parameter '{key}'"
    keys = set(item) if isinstance(item, dict) else set()
    if keys == {"choices"}:
        values = item["choices"]
        if not isinstance(values, list) or not values or not all(isinstance(v, Value) for v in values):
            raise UserError(f"{where}: choices must be a list of numbers or words")
        return Choices(tuple(values))
    if not {"low", "high"} <= keys <= {"low", "high", "log"}:
        raise UserError(f"{where}: give low and high (and log), or choices")
    low, high, log = item["low"], item["high"], item.get("log", False)
    if not all(_is_number(end) for end in (low, high)):
        raise UserError(f"{where}: low and high must be numbers (1.0e-4 in YAML; 1e-4 is text)")
    if low > high or (log is True and low <= 0) or not isinstance(log, bool):
        raise UserError(f"{where}: needs low <= high, and low above 0 where log is true")
    return Range(low, high, log)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def rounded(value: Value) -> Value:
    """A drawn float at three significant digits; other values as they are."""
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


Row = tuple[int, str, float | None, Mapping[str, Value]]  # number, state, score, values


def table(rows: list[Row], best: int | None = None) -> str:
    """Trials as lines of text, the best marked with ``*``."""
    names = list(rows[0][3]) if rows else []
    lines = [["trial", "score", *names, ""]]
    for number, state, score, values in rows:
        shown = "-" if score is None else f"{score:.4g}"
        mark = "* best" if number == best else state
        lines.append([str(number), shown, *(str(values[name]) for name in names), mark])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(_line(line, widths) for line in lines)


def _line(cells: list[str], widths: list[int]) -> str:
    numbers = [cell.rjust(width) for cell, width in zip(cells[:-1], widths, strict=False)]
    return "  ".join([*numbers, cells[-1]]).rstrip()


def write_overlay(path: Path, values: Mapping[str, Value], notes: list[str]) -> None:
    """Writes an overlay on the training config, atomically; ``notes`` become comment lines above.

    Floats get a point and a signed exponent (``1.0e-05``): YAML 1.1 takes ``1e-5`` for text.
    """
    comments = "".join(f"# {note}\n" for note in notes)
    text = yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True)
    with atomic_write(path) as temporary:
        temporary.write_text(comments + text, encoding="utf-8")


Train = Callable[[Path, Mapping[str, Any]], Outcome]
RECORD = "search.db"
STUDY = "search"
SETTING = "setting"
OTHER_FOLDER = "use another --output_dir"
STARTUP_TRIALS = 5  # drawn evenly before the estimator has anything to learn from


def optuna_module() -> ModuleType:
    """Optuna, which only searching needs.

    Raises:
        UserError: it is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise UserError("searching needs Optuna: pip install optuna (or the extra: '.[tune]')") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


class Search:
    """A search in a folder: ``search.db`` and a training per trial in ``trial_000``, ``trial_001`` ...

    The values of trial ``n`` depend on the seed, on ``n`` and on the trials before it alone, so a search that
    was killed and goes on is the search that was not. A tree-structured Parzen estimator draws them (Bergstra
    et al. 2011, "Algorithms for Hyper-Parameter Optimization"); the first trial takes the config's values.

    Args:
        folder: of the search; an existing one is gone on with.
        space: what is varied.
        train: runs a trial in a folder with overrides.
        start: values of the first trial, the rest is drawn.
        overrides: settings of every trial, from the command line.
        seed: of the draws.
        recipe: names the config that the trials train with.
    Raises:
        UserError: Optuna is missing, or the folder holds a search with other settings or an unreadable file.
    """

    def __init__(
        self,
        folder: Path,
        space: SearchSpace,
        train: Train,
        start: Mapping[str, Value],
        overrides: Mapping[str, Any],
        seed: int = 0,
        recipe: str = "",
    ) -> None:
        self.folder, self.space, self.train = folder, space, train
        self.seed, self.recipe = seed, recipe
        self.overrides = {**space.trial, **overrides}
        self.optuna = optuna_module()
        self.study = self._open()
        if not self.study.get_trials(deepcopy=False):
            self.study.enqueue_trial(dict(start))

    def run(self, trials: int, done: Callable[[FrozenTrial], None] = lambda trial: None) -> None:
        """Runs trials until ``trials`` have ended, those of earlier calls included.

        Args:
            trials: how many.
            done: called after each.
        Raises:
            UserError: the first trial ended with an error that is not divergence: the others would too.
        """
        with tqdm(
            total=trials, initial=len(self.ended()), desc="searching", unit="trial", disable=None
        ) as bar:
            while len(self.ended()) < trials:
                number, values = self._next()
                shown = ", ".join(f"{key} {value}" for key, value in values.items())
                logger.info(f"trial {number}: {shown}")
                outcome = self.train(self.trial_folder(number), {**self.overrides, **values})
                self._record(number, outcome)
                done(self.study.get_trials(deepcopy=False)[number])
                bar.update()

    def trial_folder(self, number: int) -> Path:
        """Where trial ``number`` trains."""
        return self.folder / f"trial_{number:03d}"

    def ended(self) -> list[FrozenTrial]:
        """All trials that have a score or failed, by number."""
        return [trial for trial in self._trials() if trial.state.is_finished() and self._complete(trial)]

    def best(self) -> FrozenTrial | None:
        """The trial with the lowest score."""
        scored = {trial.value: trial for trial in reversed(self.ended()) if trial.value is not None}
        return scored[min(scored)] if scored else None

    def values(self, trial: FrozenTrial) -> dict[str, Value]:
        """What the trial trained with, in the space's order."""
        return {key: rounded(trial.params[key]) for key in self.space.parameters}

    def _next(self) -> tuple[int, dict[str, Value]]:
        """The trial a killed search was at, else a new one."""
        for trial in self._trials():
            if trial.state == self.optuna.trial.TrialState.RUNNING:
                if self._complete(trial):
                    return trial.number, self.values(trial)
                self.study.tell(trial.number, state=self.optuna.trial.TrialState.FAIL)
        draws = make_rng(self.seed, "search", len(self.ended())).integers(2**31)
        sampler = self.optuna.samplers.TPESampler
        self.study.sampler = sampler(seed=int(draws), n_startup_trials=STARTUP_TRIALS)
        distributions = {key: self._distribution(found) for key, found in self.space.parameters.items()}
        number = self.study.ask(distributions).number
        return number, self.values(self.study.get_trials(deepcopy=False)[number])

    def _record(self, number: int, outcome: Outcome) -> None:
        states = self.optuna.trial.TrialState
        if outcome.score is not None:
            self.study.tell(number, outcome.score)
            return
        if not outcome.diverged and not self.ended():
            log = self.trial_folder(number) / LOG
            raise UserError(f"the first trial failed: {outcome.reason} (log: {log})")
        logger.warning(f"trial {number} {'diverged' if outcome.diverged else 'failed'}: {outcome.reason}")
        # The estimator learns from pruned trials (as the worst), not from failed ones.
        self.study.tell(number, state=states.PRUNED if outcome.diverged else states.FAIL)

    def _trials(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def _complete(self, trial: FrozenTrial) -> bool:
        return set(trial.params) == set(self.space.parameters)

    def _distribution(self, parameter: Parameter) -> BaseDistribution:
        kinds = self.optuna.distributions
        if isinstance(parameter, Choices):
            return kinds.CategoricalDistribution(parameter.values)
        kind = kinds.IntDistribution if parameter.whole else kinds.FloatDistribution
        return kind(parameter.low, parameter.high, log=parameter.log)

    def _open(self) -> Study:
        from sqlalchemy.exc import SQLAlchemyError

        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / RECORD
        try:
            return self._study_for(f"sqlite:///{path}")
        except (SQLAlchemyError, self.optuna.exceptions.StorageInternalError) as error:
            reason = " ".join(str(error.__cause__ or error).split())
            raise UserError(f"{path}: not a readable search ({reason}); {OTHER_FOLDER}") from error

    def _study_for(self, storage: str) -> Study:
        """The study with these settings; one with others is replaced as long as it has trained nothing."""
        options = {"storage": storage, "study_name": STUDY}
        study = self.optuna.create_study(**options, direction="minimize", load_if_exists=True)
        saved, setting = study.user_attrs.get(SETTING), self._setting()
        if saved not in (None, setting):
            if any(self.folder.glob("trial_*/models")):
                raise UserError(
                    f"{self.folder}: another search is there ({_changes(saved, setting)}); {OTHER_FOLDER}"
                )
            self.optuna.delete_study(**options)
            study = self.optuna.create_study(**options, direction="minimize")
        study.set_user_attr(SETTING, setting)
        return study

    def _setting(self) -> dict[str, str]:
        """What makes scores comparable."""
        ranges = {f"range of {key}": str(found) for key, found in self.space.parameters.items()}
        return {
            **{key: str(value) for key, value in self.overrides.items()},
            "seed": str(self.seed),
            "config": self.recipe,
            **ranges,
        }


def _changes(old: Mapping[str, str], new: Mapping[str, str]) -> str:
    changed = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    return "; ".join(f"{key} was {old.get(key, 'unset')}, is {new.get(key, 'unset')}" for key in changed)


OVERLAY = "tuned.yaml"


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
