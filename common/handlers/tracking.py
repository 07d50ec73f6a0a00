"""A run's numbers in MLflow, beside TensorBoard, on MONAI's handler."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from monai.handlers import MLFlowHandler
from monai.utils import OptionalImportError

from common.errors import UserError
from common.handlers.readings import logs
from common.handlers.validation import PREFIX as VALIDATED
from common.handlers.validation import scalar_metrics
from common.training.distributed import is_main

FILE_STORE = "sqlite:///"


class MlflowTracking(MLFlowHandler):
    """Logs ``engine.state.logs`` of every ``interval`` iterations and the metrics of each validation.

    MONAI's handler logs ``state.output`` and no validation. A run that was killed goes on in the same MLflow
    run when it is resumed; what it had logged after its last resume file is there twice.

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
        named = {VALIDATED + name: value for name, value in metrics.items()}
        self._log_metrics(named, trainer.state.iteration)
