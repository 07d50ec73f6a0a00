"""Exponential moving average of a generator's weights (Yazici et al. 2019), on ignite's EMAHandler."""

from __future__ import annotations

from functools import partial

from ignite.engine import Engine
from ignite.handlers import EMAHandler
from torch import nn


class WeightAverage:
    """Keeps ``average <- decay * average + (1 - decay) * weights`` after every iteration.

    The running statistics of norms are averaged alike: those of the last iteration alone belong to other
    weights than the average's, and shift every image that it draws. Whole numbers are copied.

    Args:
        network: the trained network.
        decay: 0 for no averaging; then ``network`` itself is what samples.
    Attributes:
        network: what to sample, validate and save with: the average, or the trained network where decay is 0.
    """

    def __init__(self, network: nn.Module, decay: float = 0.0) -> None:
        self.decay = decay
        made = partial(EMAHandler, network, momentum=1 - decay, handle_buffers="update")
        self._handler: EMAHandler | None = made() if decay > 0 else None
        self.network: nn.Module = network if self._handler is None else self._handler.ema_model

    def attach(self, engine: Engine, name: str) -> None:
        """Updates the average at the end of each of the engine's iterations.

        Ignite keeps the rate in ``engine.state``, so each average of an engine needs a ``name`` of its own.
        """
        if self._handler is not None:
            self._handler.attach(engine, name=f"{name}_ema_momentum", warn_if_exists=False)
