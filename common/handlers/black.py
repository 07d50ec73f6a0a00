"""Black output: a generator whose images show nothing (paper C saw it last for hundreds of epochs)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ignite.engine import Engine, Events

from common.handlers.alarm import Alarm
from common.handlers.readings import contrasts, epoch_due, logs
from common.training import distributed

SHARE, EPOCHS = "black_share", "black_epochs"


class BlackOutput:
    """Measures the share of near-constant images among those generated in an epoch.

    An epoch is black when at least ``share`` of its images are near-constant, at whatever level: their
    standard deviation over the pixels is below ``minimum_contrast``. At the end of each epoch ``black_share``
    and ``black_epochs``, the number of black epochs in a row, appear in ``engine.state.logs``.

    Unlike `common.handlers.divergence.DivergenceGuard`, which ends a run at once when *all* images of many
    iterations in a row are flat, this one bears it: runs have come back from it.

    Args:
        share: of near-constant images that makes an epoch black, in (0, 1].
        patience: black epochs in a row that are worth a warning.
        minimum_contrast: smallest standard deviation of an image that shows something, of images in [-1, 1].
        stop: end the run with the warning.
    """

    def __init__(
        self, share: float = 0.5, patience: int = 3, minimum_contrast: float = 0.02, stop: bool = False
    ) -> None:
        self.share, self.patience, self.minimum_contrast = share, patience, minimum_contrast
        self.alarm = Alarm("black output", stop)
        self.flat = self.images = 0  # generated in this epoch so far
        self.epochs = 0  # black ones in a row

    def attach(self, engine: Engine) -> None:
        """Attach before `common.handlers.scalars.ScalarLog`, which writes the measures."""
        self.alarm.attach(engine)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._update)

    def _update(self, engine: Engine) -> None:
        flat = contrasts(engine) < self.minimum_contrast
        self.flat, self.images = self.flat + int(flat.sum()), self.images + len(flat)
        if epoch_due(engine, 1):
            self._judge(engine, self._mean_share())
            self.flat = self.images = 0

    def _mean_share(self) -> float:
        """Over all processes, of which each has generated as many."""
        shares = distributed.gather(self.flat / self.images)
        return float(sum(shares) / len(shares))

    def _judge(self, engine: Engine, share: float) -> None:
        self.epochs = self.epochs + 1 if share >= self.share else 0
        logs(engine).update({SHARE: share, EPOCHS: float(self.epochs)})
        reason = f"{share:.0%} of the generated images are near-constant, for {self.epochs} epochs in a row"
        self.alarm.update(engine, self.epochs >= self.patience, reason)

    def state_dict(self) -> dict[str, Any]:
        """The counters of the present epoch, the black epochs in a row and the alarm."""
        counters = {"flat": self.flat, "images": self.images, "epochs": self.epochs}
        return {**counters, "alarm": self.alarm.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on counting from ``state_dict``."""
        self.flat, self.images, self.epochs = (int(state[name]) for name in ("flat", "images", "epochs"))
        self.alarm.load_state_dict(state["alarm"])
