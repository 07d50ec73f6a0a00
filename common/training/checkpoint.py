"""Checkpoints: the resume file, which restores a run exactly, the best model, and weights to start from."""

from __future__ import annotations

import logging
import math
import os
import pickle
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from ignite.engine import Engine, Events
from torch import Tensor, nn

from common.errors import UserError
from common.files import atomic_write, remove_leftovers, write_json
from common.inference.checkpoint import model_info, read_weights
from common.networks.state import flat_state_dict
from common.run import settings_of_training
from common.settings import check_resumed
from common.training import distributed
from common.training.distributed import is_main
from common.training.optimisation import sampling_network
from common.training.trainer import STATE_FORMAT, MultiStepTrainer

logger = logging.getLogger(__name__)


def save_tensors(content: Mapping[str, Any], path: Path) -> None:
    """Saves ``content`` with ``torch.save`` to the temporary file of an atomic write.

    Given a path, torch writes the file's name into the archive, and temporary names differ from run to run;
    so it gets an open file. It reports a full disk as a RuntimeError; this raises the OSError behind it.

    Raises:
        OSError: the file cannot be written.
    """
    try:
        with open(path, "wb") as file:
            torch.save(dict(content), file)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):
            raise error.__context__ from error
        raise


CURRENT, PREVIOUS = "resume.pt", "resume_previous.pt"


class Stateful(Protocol):
    """A handler whose state belongs to the run."""

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain numbers."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores ``state_dict``."""


def refuse_existing(folder: str | os.PathLike[str], resume: bool) -> None:
    """Raises if ``folder`` holds a run that is not to be resumed.

    Raises:
        UserError: ``folder`` holds a run and ``resume`` is false.
    """
    existing = [name for name in (CURRENT, PREVIOUS, "model.pt") if (Path(folder) / name).exists()]
    if existing and not resume:
        raise UserError(
            f"{Path(folder) / existing[0]}: a run is already there; go on with --resume true, "
            "or start another with --output_dir"
        )


def write_state(folder: str | os.PathLike[str], state: Mapping[str, Any]) -> Path:
    """Writes the resume file atomically and keeps the one before as ``resume_previous.pt``.

    Raises:
        UserError: the disk is full or read-only; both earlier files are intact then.
    """
    current = Path(folder) / CURRENT
    with atomic_write(current) as temporary:
        save_tensors(state, temporary)
        if current.exists():
            os.replace(current, current.with_name(PREVIOUS))
    return current


def read_state(folder: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Reads the newest readable resume file in ``folder``; returns None if there is none at all.

    Raises:
        UserError: there are resume files but none can be read.
    """
    paths = [Path(folder) / name for name in (CURRENT, PREVIOUS)]
    present = [path for path in paths if path.exists()]
    for path in present:
        try:
            return _load(path)
        except (OSError, RuntimeError, pickle.UnpicklingError, EOFError, KeyError, ValueError) as error:
            logger.warning(
                f"{path}: unreadable resume file ({type(error).__name__}), trying the one before it"
            )
    if present:
        raise UserError(f"{present[0]}: no resume file is readable; delete {folder} to start over")
    return None


class Resume:
    """Saves the run while it trains and brings it back, with every handler of the trainer that has a state.

    The resume file holds the settings of the bundle run that makes this handler, too. A run that is brought
    back with others is refused, see `common.settings.check_resumed`.

    Attach it after the handlers whose work at the same event it is to save. At the end of an epoch it saves
    after validation and schedules, else at every ``interval`` iterations.

    Args:
        folder: where the resume files lie, usually ``OUTPUT_DIR/models``.
        resume: bring back the run found there.
        interval: iterations between saves within an epoch; 0 for none.
        epochs: epochs between saves.
        flush: called before each save, so that logs on disk reach at least as far as the resume file.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        resume: bool = False,
        interval: int = 0,
        epochs: int = 1,
        flush: Sequence[Callable[[], None]] = (),
    ) -> None:
        self.folder, self.resume = Path(folder), resume
        self.interval, self.epochs, self.flush = interval, epochs, list(flush)
        self.settings = settings_of_training()

    def attach(self, engine: MultiStepTrainer) -> None:
        """Restores the run where asked, then saves at the chosen events and when the run ends."""
        if distributed.is_main():
            remove_leftovers(self.folder)
        if self.resume:
            self.restore(engine)
        if self.interval:
            engine.add_event_handler(Events.ITERATION_COMPLETED(every=self.interval), self._save_within_epoch)
        engine.add_event_handler(Events.EPOCH_COMPLETED(every=self.epochs), self.save)
        engine.add_event_handler(Events.COMPLETED, self.save)

    def restore(self, engine: MultiStepTrainer) -> None:
        """Loads the newest readable state into trainer and handlers; logs it, or that there is none."""
        state = read_state(self.folder)
        if state is None:
            logger.info(f"{self.folder}: nothing to resume, starting a new run")
            return
        if self.settings and "settings" in state:
            check_resumed(state["settings"], self.settings)
        elif self.settings:
            logger.warning(f"{self.folder}: saved by an earlier version, without settings to compare with")
        engine.load_training_state(state)
        for name, handler in stateful_handlers(engine.train_handlers).items():
            if name in state["handlers"]:
                handler.load_state_dict(state["handlers"][name])
        logger.info(f"{self.folder}: resumed after iteration {state['iteration']}")

    def save(self, engine: MultiStepTrainer) -> None:
        """Writes the state of this moment (process 0; the others contribute their random state)."""
        state = engine.training_state()
        if distributed.rank() > 0:
            return
        for flush in self.flush:
            flush()
        handlers = stateful_handlers(engine.train_handlers)
        state["settings"] = self.settings
        state["handlers"] = {name: handler.state_dict() for name, handler in handlers.items()}
        write_state(self.folder, state)

    def _save_within_epoch(self, engine: MultiStepTrainer) -> None:
        if engine.state.iteration % engine.state.epoch_length:
            self.save(engine)


def stateful_handlers(handlers: Iterable[Any]) -> dict[str, Stateful]:
    """Returns the handlers with a state: a group's members by their names there, others by their class's.

    Raises:
        UserError: two have one name.
    """
    named: list[tuple[str, Any]] = []
    for handler in handlers:
        members = getattr(handler, "handlers", None)  # of a `common.handlers.HandlerGroup`
        named += members.items() if isinstance(members, Mapping) else [(type(handler).__name__, handler)]
    named = [(name, handler) for name, handler in named if hasattr(handler, "load_state_dict")]
    names = [name for name, _ in named]
    double = next((name for name in names if names.count(name) > 1), None)
    if double is not None:
        raise UserError(f"train#handlers: two are called {double!r}; name them apart under `monitors`")
    return dict(named)


def _load(path: Path) -> dict[str, Any]:
    state = torch.load(path, map_location="cpu", weights_only=True)
    if state["format"] != STATE_FORMAT:
        raise UserError(
            f"{path}: resume format {state['format']} is not {STATE_FORMAT}; use the version that wrote it"
        )
    return dict(state)


FID_PREFIX = "fid"
FAITHFULNESS = ("lesion_faithfulness", "structure_faithfulness")  # a model has one of them


def fid_then_faithfulness(metrics: Mapping[str, float]) -> float:
    """``FID * (2 - faithfulness)``, lower is better; faithfulness is clipped to [0, 1].

    FID alone would choose a model that ignores the lesion mask: a few lesion pixels hardly change its
    features. Faithfulness alone would choose one that paints the mask onto noise. The product is the FID for
    a model with the full contrast of lesions (or heart structures) and twice the FID for one without any.
    SSIM and PSNR stay out: the mean image of the training set beats a trained generator on both.

    The FID must be of an extractor that sees layout (`common.metrics.features.selection_extractor` accepts no
    other), or misplaced anatomy would not count. `BestModelSaver` smooths the score over several validations.

    Args:
        metrics: one FID (``fid_<extractor>``; the first by name where there are several) and
            ``lesion_faithfulness`` or ``structure_faithfulness`` (1 = as in real images; missing or NaN, as
            in a set without lesions or conditions that are images, counts as 0 for all models alike).
    Raises:
        UserError: no FID among the metrics.

    Example:
        >>> fid_then_faithfulness({"fid_gridvgg": 10.0, "lesion_faithfulness": 0.8})
        12.0
    """
    names = sorted(name for name in metrics if name.startswith(FID_PREFIX))
    if not names:
        given = ", ".join(metrics) or "none"
        raise UserError(f"choosing the best model needs a metric {FID_PREFIX}*; validation gave {given}")
    faithfulness = next((metrics[name] for name in FAITHFULNESS if name in metrics), math.nan)
    bounded = 0.0 if math.isnan(faithfulness) else min(max(faithfulness, 0.0), 1.0)
    return metrics[names[0]] * (2 - bounded)


class BestModelSaver:
    """Saves the generator's flat state_dict to ``path`` whenever a validation is better than all before.

    ``path`` with the suffix ``.json`` holds iteration, epoch, score, metrics and ``metadata``. The first
    validation always saves, so that there is a model even if the score is NaN; later ones with a score that
    is not finite are ignored.

    The best of many noisy scores is a lucky one. With ``smoothing`` the compared and recorded score is the
    median of the last validations' scores, or the last one's own where that is worse: the weights and metrics
    are those of the last of them. Of two equal ones the better own score counts. The first
    ``smoothing`` validations each replace the model before, whatever the score: a lucky first one does not
    stay, and a run with fewer validations keeps its last model.

    Args:
        path: the model's file, e.g. ``models/model.pt``.
        network_name: the generator's name; its moving average ``<name>_ema`` is taken where there is one.
        score: a function of the validation metrics, or the name of one of them.
        mode: "min" where lower scores are better, "max" where higher are.
        metadata: facts that users of the model need (window, standardiser ...): JSON values.
        smoothing: validations in the median; 1 compares each by itself.
    """

    def __init__(
        self,
        path: str | Path,
        network_name: str = "G",
        score: Callable[[Mapping[str, float]], float] | str = fid_then_faithfulness,
        mode: str = "min",
        metadata: Mapping[str, Any] | None = None,
        smoothing: int = 1,
    ) -> None:
        if mode not in ("min", "max"):
            raise UserError(f"BestModelSaver: mode {mode!r} is neither 'min' nor 'max'")
        if smoothing < 1:
            raise UserError(f"BestModelSaver: smoothing {smoothing}: give 1 or more validations")
        self.path, self.network_name, self.score, self.mode = Path(path), network_name, score, mode
        self.metadata, self.smoothing = dict(metadata or {}), int(smoothing)
        self.best_score = self.best_own = math.nan
        self.best_iteration = 0  # 0 while there has been no validation
        self.recent: list[float] = []  # the last scores, as they were
        self.names: list[str] = []  # of the metrics that decide

    def attach(self, engine: Engine) -> None:
        """Logs the best model at the end of the run; the validation calls `update`."""
        engine.add_event_handler(Events.COMPLETED, self._announce)

    def update(self, engine: Engine, metrics: Mapping[str, float]) -> bool:
        """Saves the engine's generator if ``metrics`` are the best so far; returns whether it did."""
        self._compare_with_like(metrics)
        own = self._score(metrics)
        score, replaces = self._judged(own)
        if self.best_iteration and not replaces:
            return False
        self.best_score, self.best_own, self.best_iteration = score, own, engine.state.iteration
        if is_main():
            self._write(engine, metrics)
        return True

    def _judged(self, score: float) -> tuple[float, bool]:
        """Returns the newest model's smoothed score and whether it replaces the best."""
        if not math.isfinite(score):
            return math.nan, False
        filling = len(self.recent) < self.smoothing
        self.recent = [*self.recent, score][-self.smoothing :]
        if len(self.recent) < self.smoothing:
            return score, True
        worse = (max if self.mode == "min" else min)(median(self.recent), score)
        same_but_better = worse == self.best_score and self._better(score, self.best_own)
        return worse, filling or same_but_better or self._better(worse, self.best_score)

    def _compare_with_like(self, metrics: Mapping[str, float]) -> None:
        """Starts over if an earlier part of the run chose by another metric."""
        fids = sorted(name for name in metrics if name.startswith(FID_PREFIX))
        names = [self.score] if isinstance(self.score, str) else fids
        if self.best_iteration and names != self.names:
            logger.warning("%s: the metric has changed; the best model is chosen again", self.path)
            self.best_score, self.best_own, self.best_iteration, self.recent = math.nan, math.nan, 0, []
        self.names = names

    def _score(self, metrics: Mapping[str, float]) -> float:
        if not isinstance(self.score, str):
            return float(self.score(metrics))
        if self.score not in metrics:
            given = ", ".join(metrics) or "none"
            raise UserError(f"BestModelSaver: no metric {self.score!r}; validation gave {given}")
        return float(metrics[self.score])

    def _better(self, score: float, than: float) -> bool:
        if math.isnan(score) or math.isnan(than):
            return not math.isnan(score)
        return score < than if self.mode == "min" else score > than

    def _write(self, engine: Engine, metrics: Mapping[str, float]) -> None:
        trainer: Any = engine
        state = flat_state_dict(sampling_network(trainer.networks, self.network_name))
        with atomic_write(self.path) as temporary:
            save_tensors(state, temporary)
        record = {
            "iteration": engine.state.iteration,
            "epoch": engine.state.epoch,
            "score": _json_number(self.best_score),
            "val_smoothing": self.smoothing,
            "metrics": {name: _json_number(value) for name, value in metrics.items()},
        }
        write_json(self.path.with_suffix(".json"), self.metadata | record)

    def _announce(self, engine: Engine) -> None:
        if self.best_iteration and is_main():
            logger.info("%s: iteration %d, score %.4g", self.path, self.best_iteration, self.best_score)

    def state_dict(self) -> dict[str, Any]:
        """Returns the best score and its iteration, the last scores, and the names of the metrics."""
        return {
            "best_score": self.best_score,
            "best_own": self.best_own,
            "best_iteration": self.best_iteration,
            "recent": list(self.recent),
            "names": list(self.names),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores ``state_dict``; earlier versions have none of ``names`` and choose a new best."""
        self.best_score, self.best_iteration = float(state["best_score"]), int(state["best_iteration"])
        self.best_own = float(state.get("best_own", self.best_score))
        self.recent = [float(score) for score in state.get("recent", [])][-self.smoothing :]
        self.names = list(state.get("names", []))


def median(scores: Sequence[float]) -> float:
    """Returns the median of the scores that are numbers; earlier versions kept NaN among them."""
    return statistics.median(score for score in scores if not math.isnan(score))


def _json_number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


SHOWN_AT_MOST = 3
EMA = "_ema"


class Pretrained:
    """A handler that loads weights before the first iteration, see `load_pretrained`.

    Attach it after `common.training.checkpoint.Resume`: a run that was resumed keeps its own weights.

    Args:
        file: the weights.
        network: name of the network that a flat state_dict belongs to.
    """

    def __init__(self, file: str | os.PathLike[str], network: str = "G") -> None:
        self.file, self.network = file, network

    def attach(self, engine: MultiStepTrainer) -> None:
        """Loads the weights into the trainer's networks; logs one line."""
        if engine.state.iteration:
            logger.info(f"{self.file}: not read again, the run goes on with its own weights")
        else:
            logger.info(load_pretrained(engine.networks, self.file, self.network))


def load_pretrained(networks: Mapping[str, nn.Module], file: str | os.PathLike[str], network: str) -> str:
    """Copies the tensors of a file that have the name and shape of a network's own.

    A network's moving average ``NAME_ema`` gets the same weights as the network, unless the file has an
    average of its own. What does not fit keeps its random start.

    Args:
        networks: by name; changed in place.
        file: a flat state_dict of ``network`` (a trained or shipped ``model.pt``), a flat one of several
            networks with keys ``NAME.key``, or the ``resume.pt`` of a run.
        network: the generator's name.
    Returns:
        One line that says how much of each network was loaded, and what was not.
    Raises:
        UserError: the file is missing or holds no weights, or none of them fits ``network``.

    Example:
        >>> import tempfile, torch
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.save(nn.Linear(2, 3).state_dict(), f"{folder}/model.pt")
        ...     load_pretrained({"G": nn.Linear(4, 3)}, f"{folder}/model.pt", "G").partition(": ")[2]
        'G starts from 1 of its 2 tensors (not weight)'
    """
    states = _by_network(read_weights(file), network, networks, file)
    notes = []
    for name, target in networks.items():
        state = states.get(name) or states.get(name.removesuffix(EMA))
        if not state:
            continue
        own = target.state_dict()
        fitting = {key: value for key, value in state.items() if key in own and own[key].shape == value.shape}
        if name == network and not fitting:
            kind = str(model_info(file).get("network", {}).get("target", "")).rpartition(".")[2]
            origin = f", but a {kind}" if kind else ""
            raise UserError(
                f"{file}: none of its weights fits network {name}: no {type(target).__name__}{origin}; "
                "add the configs that they were trained with, or give other weights"
            )
        target.load_state_dict(fitting, strict=False)
        if name.removesuffix(EMA) == name:
            left = _not_loaded({**own, **state}, fitting)
            notes.append(f"{name} starts from {len(fitting)} of its {len(own)} tensors{left}")
    unused = sorted({name.removesuffix(EMA) for name in states} - set(networks))
    return f"{file}: {', '.join([*notes, *(f'no network {name} here' for name in unused)])}"


def _by_network(
    content: Any, network: str, networks: Mapping[str, nn.Module], file: str | os.PathLike[str]
) -> dict[str, dict[str, Tensor]]:
    """Splits a file's content into state_dicts by the networks' names."""
    if isinstance(content, Mapping) and isinstance(content.get("networks"), Mapping):  # a resume file
        states = content["networks"].items()
        content = {f"{name}.{key}": value for name, state in states for key, value in state.items()}
    tensors = isinstance(content, Mapping) and all(isinstance(value, Tensor) for value in content.values())
    if not tensors or not content:
        raise UserError(f"{file}: holds no weights; give a model.pt or the resume.pt of a run")
    nested = any(key.startswith(f"{network}.") for key in networks[network].state_dict())
    if nested or not any(key.startswith(f"{network}.") for key in content):
        return {network: dict(content)}
    split: dict[str, dict[str, Tensor]] = {}
    for key, value in content.items():
        name, _, rest = key.partition(".")
        split.setdefault(name, {})[rest] = value
    return split


def _not_loaded(every: Mapping[str, Tensor], fitting: Mapping[str, Tensor]) -> str:
    names = [name for name in every if name not in fitting]
    more = f" and {len(names) - SHOWN_AT_MOST} more" if len(names) > SHOWN_AT_MOST else ""
    return f" (not {', '.join(names[:SHOWN_AT_MOST])}{more})" if names else ""
