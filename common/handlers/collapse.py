"""Mode collapse: few different images from however different noise (paper C, section III)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import Tensor, nn

from common.errors import UserError
from common.handlers.alarm import Alarm
from common.handlers.images import SEED, sample
from common.handlers.readings import epoch_due, logs, sampling_network
from common.metrics.features import FeatureExtractor
from common.metrics.spread import Spread, spread
from common.training.distributed import is_main

PREFIX, MODES, EVENTS = "diversity_", "modes", "collapse_events"
BOUNDS = {"images": 0.25, "features": 0.25, "modes": 0.02}
"""Measured on 64 COVID-CT slices of 64 x 64 pixels: 64 others have a diversity of modes of 0.3; 64 draws
of 20 different slices have 0.025, of 10 0.017, of 5 0.010. Images and features fall below 0.5 at one or two
slices only.
"""


class ModeCollapse:
    """Measures every ``interval`` epochs how different the images of fixed noise are, against real images.

    ``diversity_images``, ``diversity_features`` and ``diversity_modes`` (see `common.metrics.spread.Spread`)
    appear in ``engine.state.logs``: 1 where the generated images are as different from each other as the real
    ones, 0 where they are all the same. ``modes`` is the number of modes itself.

    A look with any of them below its bound is a collapsed one; ``patience`` of them in a row are a collapse.
    A fresh generator's images are all alike: until its first look without fault, looks of the first ``grace``
    epochs do not count.
    ``collapse_events`` counts how often one has begun. The network is the moving average of the generator
    where there is one. The run's random states and the network's modes are left as they were.

    Args:
        batch: what the generator takes, by name (N entries each), and ``image``: as many real ones
            (N, 1, H, W) in [-1, 1]; see `common.inference.latents.noise_beside`.
        extractor: features; moved to ``device``.
        inputs: names of the generator's inputs, in order.
        interval: epochs between two looks; 0 for none.
        bounds: smallest value of each measure, by its name without ``diversity_``, in the place of `BOUNDS`.
        patience: looks in a row that are worth a warning.
        grace: epochs in which a generator has to become diverse at all.
        stop: end the run with the warning.
        seed: of the pairs of images that are compared.
    Raises:
        UserError: a bound of an unknown measure.
    """

    def __init__(
        self,
        batch: Mapping[str, Tensor],
        extractor: FeatureExtractor,
        inputs: Sequence[str] = ("latent",),
        interval: int = 5,
        bounds: Mapping[str, float] | None = None,
        patience: int = 2,
        grace: int = 25,
        stop: bool = False,
        network_name: str = "G",
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        extractor = extractor.to(device) if isinstance(extractor, nn.Module) else extractor
        self.inputs, self.real = [batch[name] for name in inputs], batch["image"]
        self.measure = partial(spread, extractor=extractor, seed=seed, device=device)
        self.interval, self.patience, self.grace = interval, patience, grace
        self.network_name = network_name
        self.bounds = {**BOUNDS, **(bounds or {})}
        unknown = sorted(self.bounds.keys() - BOUNDS.keys())
        if unknown:
            raise UserError(f"ModeCollapse: no measure {unknown[0]!r}; there is {', '.join(BOUNDS)}")
        self.alarm = Alarm("mode collapse", stop)
        self.fresh, self.looks = True, 0  # no look without fault yet; collapsed looks in a row
        self._reference: Spread | None = None  # of the real images, measured once

    def attach(self, engine: Engine) -> None:
        """Attach before `common.handlers.scalars.ScalarLog`, which writes the measures."""
        self.alarm.attach(engine)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._look_when_due)

    def _look_when_due(self, engine: Engine) -> None:
        if not epoch_due(engine, self.interval):
            return
        reason = self._look(engine) if is_main() else ""
        self.alarm.update(engine, self.looks >= self.patience, reason)
        logs(engine)[EVENTS] = float(self.alarm.events)

    def _look(self, engine: Engine) -> str:
        """Logs the measures and counts; says which of them are below their bounds."""
        images = sample(sampling_network(engine, self.network_name), self.inputs, SEED)[:, :1]
        if self._reference is None:
            self._reference = self.measure(self.real)
        found = self.measure(images, threshold=self._reference.threshold)
        measures = found.against(self._reference)
        logs(engine).update({PREFIX + name: value for name, value in measures.items()})
        logs(engine)[MODES] = found.modes
        low = [f"{name} {value:.2g}" for name, value in measures.items() if value < self.bounds[name]]
        self.fresh = self.fresh and bool(low)
        counts = bool(low) and not (self.fresh and engine.state.epoch <= self.grace)
        self.looks = self.looks + 1 if counts else 0
        return f"diversity of {', '.join(low)} (real images: 1), low at {self.looks} looks in a row"

    def state_dict(self) -> dict[str, Any]:
        """Whether the generator is still fresh, the collapsed looks in a row and the alarm."""
        return {"fresh": self.fresh, "looks": self.looks, "alarm": self.alarm.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on counting from ``state_dict``."""
        self.fresh, self.looks = bool(state["fresh"]), int(state["looks"])
        self.alarm.load_state_dict(state["alarm"])
