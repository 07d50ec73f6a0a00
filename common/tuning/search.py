"""The search: Optuna suggests, a trial trains, its score goes into a file that outlives the process."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from common.errors import UserError
from common.random import generator
from common.tuning.space import Choices, Parameter, SearchSpace, Value, rounded
from common.tuning.trial import LOG, Outcome

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

Train = Callable[[Path, Mapping[str, Any]], Outcome]
RECORD = "search.db"
STUDY = "search"
SETTING = "setting"
ADVICE = "use another --output_dir"
STARTUP_TRIALS = 5  # drawn evenly before the estimator has anything to learn from

logger = logging.getLogger(__name__)


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
        draws = generator(self.seed, "search", len(self.ended())).integers(2**31)
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
            raise UserError(f"{path}: not a readable search ({reason}); {ADVICE}") from error

    def _study_for(self, storage: str) -> Study:
        """The study with these settings; one with others is replaced as long as it has trained nothing."""
        options = {"storage": storage, "study_name": STUDY}
        study = self.optuna.create_study(**options, direction="minimize", load_if_exists=True)
        saved, setting = study.user_attrs.get(SETTING), self._setting()
        if saved not in (None, setting):
            if any(self.folder.glob("trial_*/models")):
                raise UserError(
                    f"{self.folder}: another search is there ({_changes(saved, setting)}); {ADVICE}"
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
