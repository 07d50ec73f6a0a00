"""Hyperparameter search with Optuna: short trainings of a bundle, scored by their best checkpoints."""

from __future__ import annotations

import logging
import math
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType, ModuleType
from typing import TYPE_CHECKING, Any

import yaml
from monai.bundle import ConfigParser
from tqdm import tqdm

from common.errors import UserError
from common.files import atomic_write, locked, read_json, write_json
from common.metrics.evaluate import format_table
from common.paths import bundle_root
from common.rng import make_rng
from common.tools.runs import LOG, Outcome, remove_resume_files, train

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution

logger = logging.getLogger(__name__)

Value = float | int | str | bool
Train = Callable[[Path, Mapping[str, Any]], Outcome]
RECORD, OVERLAY = "search.json", "tuned.yaml"
RUNNING, COMPLETE, DIVERGED, FAILED = "running", "complete", "diverged", "failed"
DIGITS = 3
"""Significant digits of drawn numbers."""
STARTUP_TRIALS = 5
"""Trials drawn at random before the estimator takes over."""


def load_optuna() -> ModuleType:
    """Imports Optuna, an optional dependency.

    Raises:
        UserError: it is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise UserError("searching needs Optuna: pip install optuna (or the extra: '.[tune]')") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


@dataclass(frozen=True)
class SearchSpace:
    """Config keys with the distributions they are drawn from, and settings that all trials share."""

    parameters: Mapping[str, BaseDistribution]
    trial: Mapping[str, Value]

    def without(self, keys: Mapping[str, Any]) -> SearchSpace:
        """Returns the space without the keys that the user has set.

        Raises:
            UserError: nothing is left to search.
        """
        left = {key: item for key, item in self.parameters.items() if key not in keys}
        if not left:
            raise UserError(f"nothing to search: {', '.join(self.parameters)} are set on the command line")
        return SearchSpace(left, self.trial)

    def values_of(self, config: Mapping[str, Any]) -> dict[str, Value]:
        """Returns the config's own values of the searched keys, as far as they lie in the space."""
        return {key: config[key] for key, item in self.parameters.items() if _contains(item, config.get(key))}


def read_space(path: Path) -> SearchSpace:
    """Reads ``search.yaml``: ``parameters`` (``{low, high, log}`` or ``{choices}`` by config key), ``trial``.

    Raises:
        UserError: the file is missing, is not YAML, or describes no search space.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "search.yaml"
        ...     _ = path.write_text("parameters: {learning_rate: {low: 1.0e-5, high: 1.0e-3, log: true}}")
        ...     space = read_space(path)
        >>> space.values_of({"learning_rate": 2.0e-4, "batch_size": 4})
        {'learning_rate': 0.0002}
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        reason = f"cannot be read ({error.strerror}); the bundle has no search space"
        raise UserError(f"{path}: {reason}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from error
    content = content if isinstance(content, dict) else {}
    unknown = sorted(set(content) - {"parameters", "trial"})
    if unknown:
        raise UserError(f"{path}: unknown key '{unknown[0]}'; use parameters and trial")
    parameters, trial = content.get("parameters"), content.get("trial") or {}
    if not isinstance(parameters, dict) or not parameters or not isinstance(trial, dict):
        raise UserError(f"{path}: needs parameters, a mapping of config keys to ranges (and trial)")
    kinds = {str(key): _distribution(f"{path}: parameter '{key}'", item) for key, item in parameters.items()}
    return SearchSpace(kinds, trial)


def _distribution(where: str, item: Any) -> BaseDistribution:
    kinds = load_optuna().distributions
    keys = set(item) if isinstance(item, dict) else set()
    if keys == {"choices"}:
        choices = item["choices"]
        if not isinstance(choices, list) or not choices or not all(isinstance(v, Value) for v in choices):
            raise UserError(f"{where}: choices must be a list of numbers or words")
        return kinds.CategoricalDistribution(choices)
    if not {"low", "high"} <= keys <= {"low", "high", "log"}:
        raise UserError(f"{where}: give low and high (and log), or choices")
    low, high = item["low"], item["high"]
    if not (_is_number(low) and _is_number(high)):
        raise UserError(f"{where}: low and high must be numbers (1.0e-4 in YAML; 1e-4 is text)")
    whole = isinstance(low, int) and isinstance(high, int)
    kind = kinds.IntDistribution if whole else kinds.FloatDistribution
    try:
        return kind(low, high, log=bool(item.get("log")))
    except ValueError as error:
        raise UserError(f"{where}: {error}") from error


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _contains(distribution: BaseDistribution, value: Any) -> bool:
    item: Any = distribution
    if hasattr(item, "choices"):
        return any(value == choice and type(value) is type(choice) for choice in item.choices)
    return _is_number(value) and item.low <= value <= item.high


def rounded(value: Value, distribution: BaseDistribution) -> Value:
    """Rounds a float drawn from a range to three significant digits, within the range."""
    item: Any = distribution
    if not isinstance(value, float) or hasattr(item, "choices"):
        return value
    return min(max(float(f"{value:.{DIGITS}g}"), item.low), item.high)


@dataclass
class Trial:
    """One training of a search: its number, settings, state and, once complete, its score."""

    number: int
    values: dict[str, Value]
    state: str = RUNNING
    score: float | None = None


class Search:
    """A search in a folder: ``search.json``, and a training per trial in ``trial_000``, ``trial_001`` ...

    Optuna's study is built from the record for every draw. The values of trial ``n`` depend on the seed, on
    ``n`` and on the trials before it only, so that a search that was killed and continued equals one that was
    not. Values are drawn by a tree-structured Parzen estimator (Bergstra et al. 2011, "Algorithms for
    Hyper-Parameter Optimization"); the first trial takes the config's own.

    Args:
        folder: of the search; an existing search is continued.
        space: what is varied.
        train: runs a trial in a folder with overrides.
        start: values of the first trial; missing ones are drawn.
        overrides: settings of every trial, from the command line.
        seed: seed of the draws.
        recipe: names of the config files that the trials train with.
    Raises:
        UserError: Optuna is missing, or the folder holds another search or an unreadable record.

    Example:
        >>> import tempfile
        >>> range_ = load_optuna().distributions.FloatDistribution(0.0, 1.0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     search = Search(
        ...         Path(folder),
        ...         SearchSpace({"x": range_}, {}),
        ...         train=lambda trial_folder, values: Outcome(abs(values["x"] - 0.3)),
        ...         start={"x": 0.3},
        ...         overrides={},
        ...     )
        ...     search.run(2)
        >>> search.best().values  # the first trial takes the config's own values
        {'x': 0.3}
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
        self.optuna = load_optuna()
        self.folder, self.space, self.train, self.start = folder, space, train, dict(start)
        self.seed, self.recipe = seed, recipe
        self.overrides = {**space.trial, **overrides}
        self.trials = self._load()

    def run(self, trials: int, done: Callable[[Trial], None] = lambda trial: None) -> None:
        """Runs trials until ``trials`` have ended, also counting earlier calls; calls ``done`` after each.

        Raises:
            UserError: the first trial failed other than by divergence, so all others would fail too.
        """
        start = len(self.ended())
        with tqdm(total=trials, initial=start, desc="searching", unit="trial", disable=None) as bar:
            while len(self.ended()) < trials:
                trial = self._next()
                logger.info(f"trial {trial.number}: {', '.join(f'{k} {v}' for k, v in trial.values.items())}")
                self._record(trial, self.train(self.trial_folder(trial), {**self.overrides, **trial.values}))
                done(trial)
                bar.update()

    def trial_folder(self, trial: Trial) -> Path:
        """Returns the folder that a trial trains in."""
        return self.folder / f"trial_{trial.number:03d}"

    def ended(self) -> list[Trial]:
        """Returns the trials that have a score or failed."""
        return [trial for trial in self.trials if trial.state != RUNNING]

    def best(self) -> Trial | None:
        """Returns the trial with the lowest score."""
        scored = [(trial.score, trial.number) for trial in self.trials if trial.score is not None]
        return self.trials[min(scored)[1]] if scored else None

    def table(self) -> str:
        """Returns the trials as lines of text, the best one marked with ``*``."""
        best = self.best()
        lines = [["trial", "score", *self.space.parameters, ""]]
        for trial in self.ended():
            score = "-" if trial.score is None else f"{trial.score:.4g}"
            mark = "* best" if trial is best else "" if trial.state == COMPLETE else trial.state
            lines.append([str(trial.number), score, *map(str, trial.values.values()), mark])
        return format_table(lines)

    def write_overlay(self, config_files: Sequence[Path]) -> None:
        """Writes the best values as ``tuned.yaml``, an overlay on the training config."""
        best = self.best()
        if best is None:
            return
        path = self.folder / OVERLAY
        files = ",".join(f"'{file}'" for file in [*config_files, path])
        notes = [
            f"The best of {len(self.ended())} trials: trial {best.number}, score {best.score:.4g}.",
            "Every trial: " + " ".join(f"--{key} {value}" for key, value in self.overrides.items()),
            f'Use: --config_file "[{files}]"',
        ]
        write_overlay(path, best.values, notes)

    def _next(self) -> Trial:
        """Returns the trial at which an earlier call stopped, or else a new one."""
        if self.trials and self.trials[-1].state == RUNNING:
            return self.trials[-1]
        study, parameters = self._study(), self.space.parameters
        if not self.trials:
            study.enqueue_trial(self.start)
        drawn = study.ask(dict(parameters)).params
        values = {key: rounded(drawn[key], item) for key, item in parameters.items()}
        self.trials.append(Trial(len(self.trials), values))
        self._save()
        return self.trials[-1]

    def _study(self) -> Study:
        """Builds Optuna's study of the trials that have ended, with a sampler seeded for the next one."""
        seed = int(make_rng(self.seed, "search", len(self.trials)).integers(2**31))
        sampler = self.optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP_TRIALS)
        study: Study = self.optuna.create_study(sampler=sampler, direction="minimize")
        kinds = self.optuna.trial.TrialState
        # The estimator learns from pruned trials (as from the worst), not from failed ones.
        states = {COMPLETE: kinds.COMPLETE, DIVERGED: kinds.PRUNED, FAILED: kinds.FAIL}
        for trial in self.trials:
            known = {"params": trial.values, "distributions": dict(self.space.parameters)}
            state = states[trial.state]
            study.add_trial(self.optuna.trial.create_trial(state=state, value=trial.score, **known))
        return study

    def _record(self, trial: Trial, outcome: Outcome) -> None:
        if outcome.score is None:
            if not outcome.diverged and not self.ended():
                log = self.trial_folder(trial) / LOG
                raise UserError(f"the first trial failed: {outcome.reason} (log: {log})")
            trial.state = DIVERGED if outcome.diverged else FAILED
            logger.warning(f"trial {trial.number} {trial.state}: {outcome.reason}")
        else:
            trial.state, trial.score = COMPLETE, outcome.score
        self._save()

    def _load(self) -> list[Trial]:
        """Reads the trials of the record; one with other settings is dropped if nothing was trained yet."""
        path, trained = self.folder / RECORD, any(self.folder.glob("trial_*/models"))
        if not path.is_file():
            if trained:
                raise UserError(f"{path}: missing, but the folder holds trials; use another --output_dir")
            return []
        record = read_json(path)
        try:
            saved, trials = record["setting"], [Trial(**trial) for trial in record["trials"]]
        except (KeyError, TypeError) as error:
            raise UserError(f"{path}: not the record of a search; use another --output_dir") from error
        setting = self._setting()
        if saved == setting:
            return trials
        if trained:
            changes = "; ".join(
                f"{key} was {saved.get(key, 'unset')}, is {setting.get(key, 'unset')}"
                for key in {**saved, **setting}
                if saved.get(key) != setting.get(key)
            )
            raise UserError(f"{self.folder}: another search is there ({changes}); use another --output_dir")
        return []

    def _save(self) -> None:
        trials = [asdict(trial) for trial in self.trials]
        write_json(self.folder / RECORD, {"setting": self._setting(), "trials": trials})

    def _setting(self) -> dict[str, str]:
        """Returns the settings that scores must share to be comparable."""
        ranges = {f"range of {key}": str(item) for key, item in self.space.parameters.items()}
        overrides = {key: str(value) for key, value in self.overrides.items()}
        return {**overrides, "seed": str(self.seed), "config": self.recipe, **ranges}


def write_overlay(path: Path, values: Mapping[str, Value], notes: Sequence[str]) -> None:
    """Writes an overlay on the training config, atomically, with ``notes`` as comment lines above it.

    PyYAML writes floats as ``1.0e-05``: YAML 1.1 reads ``1e-5`` as text.
    """
    comments = "".join(f"# {note}\n" for note in notes)
    text = yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True)
    with atomic_write(path) as temporary:
        temporary.write_text(comments + text, encoding="utf-8")


@dataclass(frozen=True)
class SearchSettings:
    """A search as requested on the command line."""

    name: str  # of the bundle
    trials: int
    seed: int = 0
    output_dir: Path | None = None  # default bundles/NAME/tuning
    config_file: Sequence[Path] | None = None  # default bundles/NAME/configs/train.yaml
    overrides: Mapping[str, Any] = field(default_factory=dict)  # of every trial


def tune(settings: SearchSettings) -> None:
    """Runs the search, prints its table and writes the best values to ``tuned.yaml``.

    Raises:
        UserError: no such bundle, config or search space, or no trial gave a score.
    """
    bundle = Path(bundle_root(settings.name))
    folder = (settings.output_dir or bundle / "tuning").resolve()
    files = [path.resolve() for path in settings.config_file or [bundle / "configs" / "train.yaml"]]
    for path in files:
        if not path.is_file():
            raise UserError(f"{path}: no such config; --config_file takes the training config, then overlays")
    space = read_space(bundle / "search.yaml").without(settings.overrides)
    start = space.values_of(ConfigParser.load_config_files([str(path) for path in files]))
    overrides = {"seed": settings.seed, **settings.overrides}

    with locked(folder) as lock, terminable():

        def run(trial_folder: Path, values: Mapping[str, Any]) -> Outcome:
            return train(trial_folder, files, values, lock)

        def done(trial: Trial) -> None:
            remove_resume_files(search.trial_folder(trial))
            if trial.score is not None:
                logger.info(f"trial {trial.number}: score {trial.score:.4g}")
                search.write_overlay(files)

        search = Search(folder, space, run, start, overrides, settings.seed, ", ".join(map(str, files)))
        try:
            search.run(settings.trials, done)
        except KeyboardInterrupt:
            raise UserError(f"stopped; the same command continues the search in {folder}") from None
    print(search.table())
    if search.best() is None:
        raise UserError(f"no trial gave a score; see {folder}/trial_*/training.log")
    search.write_overlay(files)
    print(f"best values: {folder / OVERLAY}")


@contextmanager
def terminable() -> Iterator[None]:
    """Makes SIGTERM act as Ctrl-C does, so that the trial's process ends with the search."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    earlier = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, earlier)
