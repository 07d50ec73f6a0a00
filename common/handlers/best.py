"""Keeps the best generator of a run as the bundle's model."""

from __future__ import annotations

import logging
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from common.errors import UserError
from common.files import atomic_write, write_json
from common.handlers.readings import sampling_network
from common.handlers.selection import FID_PREFIX, fid_then_faithfulness
from common.training.distributed import is_main
from common.training.saving import save_tensors

COMPILED_PREFIX = "_orig_mod."

logger = logging.getLogger(__name__)


class BestModel:
    """Writes the generator's flat state_dict to ``path`` whenever a validation is better than all before.

    Beside it, ``path`` with the suffix ``.json`` holds iteration, epoch, score, metrics and ``metadata``.
    The first validation always writes, so that there is a model even where the score is NaN. Later ones whose
    score is no finite number never do, and count as if they had not been.

    Among many validations a lucky one looks best. With ``smoothing`` the score that is compared, and stands
    in the record, is the median of the last validations' scores (of three, one lucky or unlucky one decides
    nothing); the weights and the metrics in the record are those of the last of them. Until there are so many
    scores, and when there are, the newest model replaces the one before, whatever its score: a lucky first
    one does not stay, and a run of fewer validations keeps its last model.

    Args:
        path: the model's file, e.g. ``models/model.pt``.
        network_name: the generator's name; its moving average ``<name>_ema`` is taken where there is one.
        score: a function of the validation metrics, or the name of one of them.
        mode: "min" where lower scores are better, "max" where higher are.
        metadata: what a user of the model has to know (window, standardiser ...): JSON values.
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
            raise UserError(f"BestModel: mode {mode!r} is neither 'min' nor 'max'")
        if smoothing < 1:
            raise UserError(f"BestModel: smoothing {smoothing}: give 1 or more validations")
        self.path, self.network_name, self.score, self.mode = Path(path), network_name, score, mode
        self.metadata, self.smoothing = dict(metadata or {}), int(smoothing)
        self.best_score = math.nan
        self.best_iteration = 0  # 0 while there has been no validation
        self.recent: list[float] = []  # the last scores, as they were
        self.names: list[str] = []  # of the metrics that decide

    def attach(self, engine: Engine) -> None:
        """Names the winner at the end of the run; `common.handlers.validation.Validation` calls `update`."""
        engine.add_event_handler(Events.COMPLETED, self._announce)

    def update(self, engine: Engine, metrics: Mapping[str, float]) -> bool:
        """Keeps the engine's present generator if ``metrics`` are the best so far; True if so."""
        self._compare_with_like(metrics)
        score, replaces = self._judged(self._score(metrics))
        if self.best_iteration and not replaces:
            return False
        self.best_score, self.best_iteration = score, engine.state.iteration
        if is_main():
            self._write(engine, metrics)
        return True

    def _judged(self, score: float) -> tuple[float, bool]:
        """What the newest model is compared by, and whether it replaces the best."""
        if not math.isfinite(score):
            return math.nan, False
        filling = len(self.recent) < self.smoothing
        self.recent = [*self.recent, score][-self.smoothing :]
        if len(self.recent) < self.smoothing:
            return score, True
        middle = median(self.recent)
        return middle, filling or self._better(middle)

    def _compare_with_like(self, metrics: Mapping[str, float]) -> None:
        """Starts anew where an earlier run of this model was judged by another metric."""
        fids = sorted(name for name in metrics if name.startswith(FID_PREFIX))
        names = [self.score] if isinstance(self.score, str) else fids
        if self.best_iteration and names != self.names:
            logger.warning("%s: judged by another metric than before; the best is chosen anew", self.path)
            self.best_score, self.best_iteration, self.recent = math.nan, 0, []
        self.names = names

    def _score(self, metrics: Mapping[str, float]) -> float:
        if not isinstance(self.score, str):
            return float(self.score(metrics))
        if self.score not in metrics:
            given = ", ".join(metrics) or "none"
            raise UserError(f"BestModel: no metric {self.score!r}; validation gave {given}")
        return float(metrics[self.score])

    def _better(self, score: float) -> bool:
        if math.isnan(score) or math.isnan(self.best_score):
            return not math.isnan(score)
        return score < self.best_score if self.mode == "min" else score > self.best_score

    def _write(self, engine: Engine, metrics: Mapping[str, float]) -> None:
        state = flat_state_dict(sampling_network(engine, self.network_name))
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
        """The best score and its iteration, the last scores, and the names of the metrics."""
        return {
            "best_score": self.best_score,
            "best_iteration": self.best_iteration,
            "recent": list(self.recent),
            "names": list(self.names),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from ``state_dict``; one without names, of an earlier version, chooses its best anew."""
        self.best_score, self.best_iteration = float(state["best_score"]), int(state["best_iteration"])
        self.recent = [float(score) for score in state.get("recent", [])][-self.smoothing :]
        self.names = list(state.get("names", []))


def median(scores: Sequence[float]) -> float:
    """Of those that are numbers, one at least; earlier versions kept NaN among the last scores."""
    return statistics.median(score for score in scores if not math.isnan(score))


def flat_state_dict(network: nn.Module) -> dict[str, torch.Tensor]:
    """The state_dict of the bare network: contiguous CPU tensors, no prefixes of wrappers."""
    bare = network.module if isinstance(network, DistributedDataParallel) else network
    return {
        name.replace(COMPILED_PREFIX, ""): value.detach().cpu().contiguous().clone()
        for name, value in bare.state_dict().items()
    }


def _json_number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
