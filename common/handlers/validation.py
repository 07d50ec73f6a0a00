"""Validation during training, and its metrics in MLflow."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.engines import Evaluator
from monai.handlers import MLFlowHandler
from monai.utils import OptionalImportError

from common.errors import UserError
from common.handlers.engine import epoch_due, logs, networks
from common.handlers.logging import TrainingLogger
from common.networks.state import evaluating
from common.rng import preserved_rng
from common.training.checkpoint import BestModelSaver
from common.training.distributed import is_main

PREFIX = "val/"
SEED = 0


class Validation:
    """Runs ``evaluator`` every ``interval`` epochs and at the end; logs its metrics, saves the best model.

    The metrics are logged as ``val/<metric>``.

    MONAI's ``ValidationHandler`` works at EPOCH_COMPLETED, after the resume file of that iteration, consumes
    the run's random numbers, and logs nothing.

    Args:
        evaluator: its scalar metrics are logged.
        log: the run's log.
        best: saves the best model; None for none.
        interval: epochs between two validations; 0 for the end only.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        log: TrainingLogger,
        best: BestModelSaver | None = None,
        interval: int = 1,
    ) -> None:
        self.evaluator, self.log, self.best = evaluator, log, best
        self.interval = interval
        self.last_iteration = 0

    def attach(self, engine: Engine) -> None:
        """Attach after the log and before the resume file's saver."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._run_when_due)
        engine.add_event_handler(Events.COMPLETED, self._run_at_end)

    def run(self, engine: Engine) -> dict[str, float]:
        """Validates now and returns the metrics; restores random states and the networks' modes."""
        with preserved_rng(SEED), evaluating(*networks(engine).values()):
            self.evaluator.run(engine.state.epoch)
        metrics = scalar_metrics(self.evaluator.state.metrics)
        self.last_iteration = engine.state.iteration
        self.log.add_scalars({PREFIX + name: value for name, value in metrics.items()}, self.last_iteration)
        self.log.flush()
        if self.best is not None:
            self.best.update(engine, metrics)
        return metrics

    def _run_when_due(self, engine: Engine) -> None:
        if epoch_due(engine, self.interval):
            self.run(engine)

    def _run_at_end(self, engine: Engine) -> None:
        if engine.state.iteration != self.last_iteration:
            self.run(engine)

    def state_dict(self) -> dict[str, Any]:
        """Returns the iteration of the last validation."""
        return {"last_iteration": self.last_iteration}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores ``state_dict``."""
        self.last_iteration = int(state["last_iteration"])


def scalar_metrics(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Returns the metrics that are single numbers (Python's, numpy's or one-element tensors) as floats.

    Example:
        >>> scalar_metrics({"fid": torch.tensor([2.5]), "confusion": torch.zeros(2, 2), "count": 3})
        {'fid': 2.5, 'count': 3.0}
    """
    numbers = {name: value for name, value in metrics.items() if isinstance(value, (int, float, np.number))}
    tensors = {name: value for name, value in metrics.items() if isinstance(value, torch.Tensor)}
    singles = numbers | {name: value for name, value in tensors.items() if value.numel() == 1}
    return {name: float(singles[name]) for name in metrics if name in singles}


FILE_STORE = "sqlite:///"


class MlflowTracking(MLFlowHandler):
    """Logs ``engine.state.logs`` of every ``interval`` iterations and each validation's metrics to MLflow.

    MONAI's handler logs ``state.output`` and no validation. A killed and resumed run continues in the same
    MLflow run; entries after its last resume file are there twice.

    Args:
        tracking_uri: MLflow's store: ``sqlite:///FILE`` (the folder is made) or a server's address; the
            environment's ``MLFLOW_TRACKING_URI`` comes first.
        experiment_name: runs of one name can be compared.
        run_name: this run's.
        evaluator: of the validation, whose metrics become ``val/NAME``.
        experiment_param: settings of the run, shown in MLflow's table.
        interval: iterations between two entries.
        artifacts: files or folders to keep with the run when it ends.
    Raises:
        UserError: MLflow is not installed.
    """

    def __init__(
        self,
        tracking_uri: str,
        experiment_name: str,
        run_name: str,
        evaluator: Engine | None = None,
        experiment_param: Mapping[str, Any] | None = None,
        interval: int = 1,
        artifacts: Any = None,
    ) -> None:
        if tracking_uri.startswith(FILE_STORE) and is_main():
            Path(tracking_uri.removeprefix(FILE_STORE)).parent.mkdir(parents=True, exist_ok=True)
        try:
            super().__init__(
                tracking_uri=tracking_uri,
                iteration_log=lambda _, iteration: iteration % interval == 0,
                experiment_name=experiment_name,
                run_name=run_name,
                experiment_param=dict(experiment_param or {}),
                artifacts=artifacts,
                close_on_complete=True,
            )
        except (OptionalImportError, ModuleNotFoundError) as error:
            raise UserError(f"MLflow: {error}; pip install mlflow-skinny sqlalchemy alembic") from error
        self.evaluator = evaluator

    def attach(self, engine: Engine) -> None:
        """Attach after the validation, so that the metrics at the end of the run come in. Rank 0 writes."""
        if not is_main():
            return
        super().attach(engine)
        if self.evaluator is not None:
            self.evaluator.add_event_handler(Events.COMPLETED, self._log_validation, engine)

    def _default_iteration_log(self, engine: Engine) -> None:
        self._log_metrics(
            {name: float(value) for name, value in logs(engine).items()}, engine.state.iteration
        )

    def _default_epoch_log(self, engine: Engine) -> None:
        """Nothing: a training's epoch has no metrics of its own."""

    def _log_validation(self, evaluator: Engine, trainer: Engine) -> None:
        metrics = scalar_metrics(evaluator.state.metrics)
        named = {PREFIX + name: value for name, value in metrics.items()}
        self._log_metrics(named, trainer.state.iteration)
