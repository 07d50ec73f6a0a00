"""Exponential moving average of a generator's weights (Yazici et al. 2019), on ignite's EMAHandler."""

from __future__ import annotations

from functools import partial

from ignite.engine import Engine
from ignite.handlers import EMAHandler
from torch import nn

from common.errors import UserError


class WeightAverage:
    """Keeps ``average <- decay * average + (1 - decay) * weights`` after every iteration.

    The decay is 0.5 ** (images of an iteration / half-life in images), as in StyleGAN2's code (Karras et al.
    2020): the average's memory does not depend on batch size and number of processes.

    The running statistics of norms are averaged alike: those of the last iteration alone belong to other
    weights than the average's, and shift every image that it draws. Whole numbers are copied.

    Args:
        network: the trained network.
        half_life: images after which weights count half in the average; 0 for no averaging, then ``network``
            itself is what samples.
    Attributes:
        network: what to sample, validate and save with: the average, or without one the trained network.
    Raises:
        UserError: a negative half-life.
    """

    def __init__(self, network: nn.Module, half_life: float = 0.0) -> None:
        if not half_life >= 0:
            raise UserError(f"ema_half_life {half_life}: give a number of images, or 0 for no average")
        self.half_life = half_life
        made = partial(EMAHandler, network, handle_buffers="update")
        self._handler: EMAHandler | None = made() if half_life else None
        self.network: nn.Module = network if self._handler is None else self._handler.ema_model

    def attach(self, engine: Engine, name: str, images: int) -> None:
        """Updates the average at the end of each of the engine's iterations.

        Args:
            name: ignite keeps the rate in ``engine.state``: each average of an engine needs one of its own.
            images: that the network learns from in an iteration, over all processes.
        """
        if self._handler is not None:
            self._handler.momentum = 1 - 0.5 ** (images / self.half_life)
            self._handler.attach(engine, name=f"{name}_ema_momentum", warn_if_exists=False)
