"""Monitors of a training: divergence, constant output, mode collapse, vanishing gradients, convergence."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import Tensor, nn

from common.errors import TrainingDiverged, UserError
from common.handlers.engine import (
    batches_per_epoch,
    contrasts,
    epoch_due,
    logged,
    logs,
    networks,
    prediction,
    stop_after_iteration,
)
from common.handlers.image_logging import SEED, sample
from common.metrics.diversity import Diversity, measure_diversity
from common.metrics.features import FeatureExtractor
from common.training import distributed
from common.training.distributed import any_rank, is_main
from common.training.optimisation import sampling_network

logger = logging.getLogger(__name__)


class Alarm:
    """Warns once when a fault begins, is silent while it lasts, and can end the run.

    Args:
        what: the fault, e.g. ``mode collapse``.
        stop: end the run (cleanly, after this iteration). Such a run only trains on if it is resumed without
            ``stop``.

    Attributes:
        on: the fault lasts.
        events: how often it has begun.
    """

    def __init__(self, what: str, stop: bool = False) -> None:
        self.what, self.stop = what, stop
        self.on, self.events = False, 0

    def attach(self, engine: Engine) -> None:
        """Keeps a run that this alarm ended from training on."""
        engine.add_event_handler(Events.STARTED, self._start)

    def update(self, engine: Engine, wrong: bool, reason: str) -> None:
        """Takes the newest check; every process must call it.

        Args:
            wrong: whether there is a fault.
            reason: its numbers, for the warning.
        """
        wrong, before = any_rank(wrong), self.on
        self.on = wrong
        if wrong and not before:
            self.events += 1
            self._announce(engine, reason)

    def _announce(self, engine: Engine, reason: str) -> None:
        moment = f"iteration {engine.state.iteration}, epoch {engine.state.epoch}"
        if is_main():
            logger.warning("%s at %s: %s%s", self.what, moment, reason, "; the run stops here" * self.stop)
        if self.stop:
            stop_after_iteration(engine)

    def _start(self, engine: Engine) -> None:
        if self.stop and self.on:
            logger.warning("%s had ended this run; it goes on without that setting", self.what)
            engine.terminate()

    def state_dict(self) -> dict[str, Any]:
        """Returns whether it is on and how often it has gone off."""
        return {"on": self.on, "events": self.events}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores ``state_dict``."""
        self.on, self.events = bool(state["on"]), int(state["events"])


SHARE, EPOCHS = "black_share", "black_epochs"


class ConstantOutputMonitor:
    """Measures the share of near-constant images among those generated in an epoch.

    An epoch is black if at least ``share`` of its images are near-constant at any gray level: their standard
    deviation over the pixels is below ``minimum_contrast``. At the end of each epoch ``black_share`` and
    ``black_epochs``, the number of black epochs in a row, appear in ``engine.state.logs``.

    Unlike `DivergenceGuard`, which ends a run when all images of many iterations in a row are constant, this
    monitor tolerates them: runs have recovered.

    Args:
        share: of near-constant images that makes an epoch black, in (0, 1].
        patience: black epochs in a row before the warning.
        minimum_contrast: standard deviation below which an image in [-1, 1] is near-constant.
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
        """Attach before `common.handlers.logging.TrainingLogger`, which writes the measures."""
        self.alarm.attach(engine)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._update)

    def _update(self, engine: Engine) -> None:
        flat = contrasts(engine) < self.minimum_contrast
        self.flat, self.images = self.flat + int(flat.sum()), self.images + len(flat)
        if epoch_due(engine, 1):
            self._judge(engine, self._mean_share())
            self.flat = self.images = 0

    def _mean_share(self) -> float:
        """Returns the mean over all processes, which generate the same number of images."""
        shares = distributed.gather(self.flat / self.images)
        return float(sum(shares) / len(shares))

    def _judge(self, engine: Engine, share: float) -> None:
        self.epochs = self.epochs + 1 if share >= self.share else 0
        logs(engine).update({SHARE: share, EPOCHS: float(self.epochs)})
        reason = f"{share:.0%} of the generated images are near-constant, for {self.epochs} epochs in a row"
        self.alarm.update(engine, self.epochs >= self.patience, reason)

    def state_dict(self) -> dict[str, Any]:
        """Returns the counters of the present epoch, the black epochs in a row and the alarm."""
        counters = {"flat": self.flat, "images": self.images, "epochs": self.epochs}
        return {**counters, "alarm": self.alarm.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores ``state_dict``."""
        self.flat, self.images, self.epochs = (int(state[name]) for name in ("flat", "images", "epochs"))
        self.alarm.load_state_dict(state["alarm"])


PREFIX, MODES, EVENTS = "diversity_", "modes", "collapse_events"
BOUNDS = {"images": 0.25, "features": 0.25, "modes": 0.02}
"""Measured on 64 COVID-CT slices of 64 x 64 pixels: the diversity of modes of 64 other slices is 0.3, of 64
draws from 20 slices 0.025, from 10 0.017, from 5 0.010. Images and features only fall below 0.5 for one or
two slices.
"""


class ModeCollapseMonitor:
    """Compares every ``interval`` epochs the diversity of images from fixed noise with that of real images.

    ``diversity_images``, ``diversity_features`` and ``diversity_modes`` (see
    `common.metrics.diversity.Diversity`) appear in ``engine.state.logs``: 1 if the generated images
    differ as much as the real ones, 0 if they are all the same. ``modes`` is the number of modes.

    A check with any of them below its bound fails; ``patience`` failed checks in a row are a collapse, and
    ``collapse_events`` counts them. A fresh generator's images are all alike: until its first good check, the
    checks of the first ``grace`` epochs do not count. The network is the moving average of the generator if
    there is one. Random states and modes are restored.

    Args:
        batch: the generator's inputs by name (N entries each), and ``image``: as many real images
            (N, 1, H, W) in [-1, 1]; see `common.inference.sampling.noise_beside`.
        extractor: features; moved to ``device``.
        inputs: names of the generator's inputs, in order.
        interval: epochs between two checks; 0 for none.
        bounds: smallest value of each measure, by its name without ``diversity_``, instead of `BOUNDS`.
        patience: failed checks in a row before the warning.
        grace: epochs in which a generator may still be uniform.
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
        self.measure = partial(measure_diversity, extractor=extractor, seed=seed, device=device)
        self.interval, self.patience, self.grace = interval, patience, grace
        self.network_name = network_name
        self.bounds = {**BOUNDS, **(bounds or {})}
        unknown = sorted(self.bounds.keys() - BOUNDS.keys())
        if unknown:
            raise UserError(f"ModeCollapseMonitor: no measure {unknown[0]!r}; there is {', '.join(BOUNDS)}")
        self.alarm = Alarm("mode collapse", stop)
        self.fresh, self.looks = True, 0  # no good check yet; failed checks in a row
        self._reference: Diversity | None = None  # of the real images, measured once

    def attach(self, engine: Engine) -> None:
        """Attach before `common.handlers.logging.TrainingLogger`, which writes the measures."""
        self.alarm.attach(engine)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._look_when_due)

    def _look_when_due(self, engine: Engine) -> None:
        if not epoch_due(engine, self.interval):
            return
        reason = self._look(engine) if is_main() else ""
        self.alarm.update(engine, self.looks >= self.patience, reason)
        logs(engine)[EVENTS] = float(self.alarm.events)

    def _look(self, engine: Engine) -> str:
        """Logs the measures and counts; returns which of them are below their bounds."""
        images = sample(sampling_network(networks(engine), self.network_name), self.inputs, SEED)[:, :1]
        if self._reference is None:
            self._reference = self.measure(self.real)
        diversity = self.measure(images, threshold=self._reference.threshold)
        measures = diversity.against(self._reference)
        logs(engine).update({PREFIX + name: value for name, value in measures.items()})
        logs(engine)[MODES] = diversity.modes
        low = [f"{name} {value:.2g}" for name, value in measures.items() if value < self.bounds[name]]
        self.fresh = self.fresh and bool(low)
        counts = bool(low) and not (self.fresh and engine.state.epoch <= self.grace)
        self.looks = self.looks + 1 if counts else 0
        return f"diversity of {', '.join(low)} (real images: 1), low at {self.looks} looks in a row"

    def state_dict(self) -> dict[str, Any]:
        """Returns whether the generator is still fresh, the failed checks in a row and the alarm."""
        return {"fresh": self.fresh, "looks": self.looks, "alarm": self.alarm.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores ``state_dict``."""
        self.fresh, self.looks = bool(state["fresh"]), int(state["looks"])
        self.alarm.load_state_dict(state["alarm"])


SUFFIX, COUNTER = "_gradient_norm", "vanishing_iterations"


class GradientNormMonitor:
    """Watches the discriminator's loss and the norms of the networks' gradients.

    After every iteration ``D_gradient_norm`` and ``G_gradient_norm`` (the Euclidean norm of all gradients of
    the network's last update) appear in ``engine.state.logs``, and ``vanishing_iterations``: the longest
    current streak of iterations below a bound. Overflowed gradients (half precision) count as not vanishing.

    Args:
        loss: entry of ``engine.state.logs``.
        loss_below: bound of the loss; None for losses without a minimum, such as a critic's.
        gradient_below: bound of the gradients' norms; None to log them only.
        names: networks whose gradients are measured.
        patience: iterations in a row before the warning.
        stop: end the run with the warning.
    """

    def __init__(
        self,
        loss: str = "D_loss",
        loss_below: float | None = 0.01,
        gradient_below: float | None = 1e-2,
        names: Sequence[str] = ("D", "G"),
        patience: int = 200,
        stop: bool = False,
    ) -> None:
        self.loss, self.names, self.patience = loss, list(names), patience
        bounds = {loss: loss_below} | {name + SUFFIX: gradient_below for name in names}
        self.bounds = {name: bound for name, bound in bounds.items() if bound is not None}
        self.iterations = dict.fromkeys(self.bounds, 0)  # below the bound, in a row
        self.alarms = {name: Alarm(f"vanishing {name}", stop) for name in self.bounds}

    def attach(self, engine: Engine) -> None:
        """Attach before `common.handlers.logging.TrainingLogger`, which writes the measures."""
        missing = [name for name in self.names if name not in networks(engine)]
        if missing:
            raise UserError(
                f"GradientNormMonitor: no network {missing[0]!r}; there is {', '.join(networks(engine))}"
            )
        for alarm in self.alarms.values():
            alarm.attach(engine)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._update)

    def _update(self, engine: Engine) -> None:
        measures = {name + SUFFIX: gradient_norm(networks(engine)[name].parameters()) for name in self.names}
        logs(engine).update({name: value for name, value in measures.items() if math.isfinite(value)})
        measures[self.loss] = logged(engine, self.loss)
        for name in self.bounds:
            self._judge(engine, name, measures[name])
        logs(engine)[COUNTER] = float(max(self.iterations.values(), default=0))

    def _judge(self, engine: Engine, name: str, value: float) -> None:
        bound = self.bounds[name]
        count = self.iterations[name] = self.iterations[name] + 1 if value < bound else 0
        reason = f"{value:.2g} is below {bound:g}, for {count} iterations in a row"
        self.alarms[name].update(engine, count >= self.patience, reason)

    def state_dict(self) -> dict[str, Any]:
        """Returns the counters and alarms by measure."""
        alarms = {name: alarm.state_dict() for name, alarm in self.alarms.items()}
        return {"iterations": dict(self.iterations), "alarms": alarms}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores ``state_dict``."""
        for name in self.bounds.keys() & state["iterations"].keys():
            self.iterations[name] = int(state["iterations"][name])
            self.alarms[name].load_state_dict(state["alarms"][name])


def gradient_norm(parameters: Iterable[Tensor]) -> float:
    """Returns the Euclidean norm of all gradients; parameters without one (frozen) count as 0."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    return float(torch.nn.utils.get_total_norm(gradients)) if gradients else 0.0


PICTURES = 4
"""Dimensions of a batch of pictures; for other outputs (scores, boxes) only the losses are checked."""
ADVICE = "lower the learning rate or switch --amp off"


class DivergenceGuard:
    """Raises `TrainingDiverged` if a logged value or an image is NaN or infinite, or the output constant.

    Constant (for example all black) means: the standard deviation over the pixels of every image of the batch
    is below ``minimum_contrast`` for ``patience`` iterations in a row. The default of 0.002 is a thousandth
    of the range [-1, 1]. Only the first channel counts.

    Args:
        patience: constant iterations in a row that are tolerated (a fresh generator may start so); None for
            any number, where `ConstantOutputMonitor` watches them.
        minimum_contrast: standard deviation below which an image is constant.
        checkpoint: the resume file, named in the message.
    """

    def __init__(
        self, patience: int | None = 50, minimum_contrast: float = 0.002, checkpoint: str | Path | None = None
    ) -> None:
        self.patience, self.minimum_contrast = patience, minimum_contrast
        self.checkpoint = None if checkpoint is None else Path(checkpoint)
        self.flat_iterations = 0

    def attach(self, engine: Engine) -> None:
        """Attach first, so that nothing of a bad iteration is written."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._check)

    def _check(self, engine: Engine) -> None:
        reason = self._not_finite(engine) or self._constant(engine)
        if any_rank(reason != ""):
            reason = reason or "another process diverged"
            raise TrainingDiverged(f"iteration {engine.state.iteration}: {reason}; {self._kept()}; {ADVICE}")

    def _not_finite(self, engine: Engine) -> str:
        bad = [
            f"{name} is {float(value)}" for name, value in logs(engine).items() if not math.isfinite(value)
        ]
        return ", ".join(bad)

    def _constant(self, engine: Engine) -> str:
        if prediction(engine).ndim < PICTURES:
            return ""
        contrast = float(torch.max(contrasts(engine)))  # NaN where any image has one
        if not math.isfinite(contrast):
            return "the generated images hold NaN or infinite values"
        self.flat_iterations = self.flat_iterations + 1 if contrast < self.minimum_contrast else 0
        if self.patience is None or self.flat_iterations < self.patience:
            return ""
        level = float(prediction(engine)[:, :1].float().mean())
        return f"constant images ({level:.2f} of -1..1) for {self.flat_iterations} iterations"

    def _kept(self) -> str:
        if self.checkpoint is not None and self.checkpoint.is_file():
            return f"the last good checkpoint is {self.checkpoint}"
        return "no checkpoint had been written yet"

    def state_dict(self) -> dict[str, Any]:
        """Returns the number of constant iterations so far."""
        return {"flat_iterations": self.flat_iterations}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores ``state_dict``."""
        self.flat_iterations = int(state["flat_iterations"])


LOG_NAME = "convergence"
SHORTEST_WINDOW = 20  # iterations
SMALLEST = 1e-8  # medians of exactly 0 do not divide


class Convergence:
    """Detects when the losses have converged, and can stop the run then.

    Iterations are divided into consecutive windows. The measure of a window is the relative change of the
    median of each loss from the window before, ``|m - m'| / |m'|``, the largest over all losses. Medians
    ignore the spikes of adversarial losses, and a loss that oscillates about a fixed value is stable. The run
    has converged when the measure stays below ``tolerance`` for ``patience`` windows in a row.

    The measure appears as ``convergence`` in ``engine.state.logs`` at the end of each window but the first.

    Args:
        names: losses in ``engine.state.logs``, e.g. ``("G_loss", "D_loss")``.
        window: iterations per window; None for the batches of an epoch, at least 20.
        tolerance: largest relative change that counts as stable, e.g. 0.02.
        patience: stable windows in a row that mean convergence.
        stop: end the run (cleanly, after this iteration) when it has converged.
    """

    def __init__(
        self,
        names: Sequence[str] = ("G_loss", "D_loss"),
        window: int | None = None,
        tolerance: float = 0.02,
        patience: int = 3,
        stop: bool = False,
    ) -> None:
        self.names, self.window = list(names), window or 0
        self.tolerance, self.patience, self.stop = tolerance, patience, stop
        self.values: list[list[float]] = []  # of the present window: iterations x names
        self.medians: list[float] = []  # of the window before, by name; empty in the first window
        self.stable_windows = 0
        self.converged_at = 0  # iteration; 0 while it has not

    def attach(self, engine: Engine) -> None:
        """Attach before `common.handlers.logging.TrainingLogger`, which writes the measure."""
        self.window = self.window or max(SHORTEST_WINDOW, batches_per_epoch(engine))
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._update)

    def _start(self, engine: Engine) -> None:
        if self.stop and self.converged_at:
            logger.info("the losses had converged at iteration %d; nothing left to train", self.converged_at)
            engine.terminate()

    def _update(self, engine: Engine) -> None:
        self.values.append([logged(engine, name) for name in self.names])
        if len(self.values) < self.window:
            return
        medians = torch.tensor(self.values, dtype=torch.float64).quantile(0.5, dim=0).tolist()  # (names,)
        if self.medians:
            self._judge(engine, relative_change(self.medians, medians))
        self.values, self.medians = [], medians

    def _judge(self, engine: Engine, change: float) -> None:
        logs(engine)[LOG_NAME] = change
        self.stable_windows = self.stable_windows + 1 if change < self.tolerance else 0
        if not self.converged_at and any_rank(self.stable_windows >= self.patience):
            self.converged_at = engine.state.iteration
            self._announce(engine)

    def _announce(self, engine: Engine) -> None:
        logger.info(
            "converged at iteration %d: %s moved by less than %.2g in each of %d windows of %d iterations%s",
            self.converged_at,
            " and ".join(self.names),
            self.tolerance,
            self.patience,
            self.window,
            "; the run stops here" if self.stop else "",
        )
        if self.stop:
            stop_after_iteration(engine)

    def state_dict(self) -> dict[str, Any]:
        """Returns the values of the present window (n, names), the medians before it, and the counters."""
        return {
            "values": torch.tensor(self.values, dtype=torch.float64),
            "medians": torch.tensor(self.medians, dtype=torch.float64),
            "stable_windows": self.stable_windows,
            "converged_at": self.converged_at,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores ``state_dict``."""
        self.values = state["values"].tolist()
        self.medians = state["medians"].tolist()
        self.stable_windows = int(state["stable_windows"])
        self.converged_at = int(state["converged_at"])


def relative_change(before: Sequence[float], after: Sequence[float]) -> float:
    """Returns the largest ``|after - before| / |before|`` over all pairs.

    Example:
        >>> relative_change([1.0, -2.0], [1.5, -2.2])
        0.5
    """
    return max(abs(b - a) / max(abs(a), SMALLEST) for a, b in zip(before, after, strict=True))


ACCURACIES = ("D_accuracy_real", "D_accuracy_fake", "D_accuracy_pairs")


class AccuracyAverage:
    """Adds the running average ``<name>_ema`` of noisy batch accuracies to ``engine.state.logs``.

    average <- smoothing * average + (1 - smoothing) * value, starting with the first value. Ignite's
    ``RunningAverage`` resets with each epoch or run, so that a resumed run would differ.

    Args:
        names: entries of ``engine.state.logs``; None for those of `ACCURACIES` that are logged (none for a
            critic).
        smoothing: weight of the past, in [0, 1); 0.98 averages over about 50 iterations.
    """

    def __init__(self, names: Sequence[str] | None = None, smoothing: float = 0.98) -> None:
        self.names = None if names is None else list(names)
        self.smoothing = smoothing
        self.averages: dict[str, float] = {}

    def attach(self, engine: Engine) -> None:
        """Attach before `common.handlers.logging.TrainingLogger`, which writes the averages."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._update)

    def _update(self, engine: Engine) -> None:
        known = [name for name in ACCURACIES if name in logs(engine)]
        for name in known if self.names is None else self.names:
            value = logged(engine, name)
            past = self.averages.get(name, value)
            self.averages[name] = self.smoothing * past + (1 - self.smoothing) * value
            logs(engine)[f"{name}_ema"] = self.averages[name]

    def state_dict(self) -> dict[str, Any]:
        """Returns the averages by name."""
        return {"averages": dict(self.averages)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores ``state_dict``."""
        self.averages = dict(state["averages"])
