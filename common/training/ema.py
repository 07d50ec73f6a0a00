"""Exponential moving average of a generator's weights (Yazici et al. 2019), on ignite's EMAHandler."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from ignite.engine import Engine, Events
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
        ramp: longest half-life as a share of the images seen so far, so that the first weights are soon
            forgotten whatever the run's length (StyleGAN2-ADA's "ema_rampup", Karras et al. 2020, is 0.05);
            0 for the full half-life from the start.
    Attributes:
        network: what to sample, validate and save with: the average, or without one the trained network.
    Raises:
        UserError: a negative half-life or ramp.

    Example:
        >>> network = nn.Linear(1, 1)
        >>> WeightAverage(network).network is network
        True
        >>> WeightAverage(network, half_life=1000).network is network
        False
    """

    def __init__(self, network: nn.Module, half_life: float = 0.0, ramp: float = 0.0) -> None:
        if not half_life >= 0:
            raise UserError(f"ema_half_life {half_life}: give a number of images, or 0 for no average")
        if not ramp >= 0:
            raise UserError(f"ema_ramp {ramp}: give a share of the images seen, or 0 for no ramp")
        self.half_life, self.ramp = half_life, ramp
        made = partial(EMAHandler, network, handle_buffers="update")
        self._handler: EMAHandler | None = made() if half_life else None
        self.network: nn.Module = network if self._handler is None else self._handler.ema_model

    def attach(self, engine: Engine, name: str, images: int) -> None:
        """Updates the average at the end of each of the engine's iterations.

        Args:
            name: ignite keeps the rate in ``engine.state``: each average of an engine needs one of its own.
            images: that the network learns from in an iteration, over all processes.
        """
        if self._handler is None:
            return
        attribute = f"{name}_ema_momentum"

        def set_rate(engine: Engine) -> None:
            longest = self.ramp * engine.state.iteration * images if self.ramp else self.half_life
            setattr(engine.state, attribute, 1 - 0.5 ** (images / min(self.half_life, longest)))

        self._handler.momentum = 1 - 0.5 ** (images / self.half_life)
        if self.ramp:
            engine.add_event_handler(Events.ITERATION_COMPLETED, set_rate)
        self._handler.attach(engine, name=attribute, warn_if_exists=False)


def sampling_network(networks: Mapping[str, nn.Module], name: str) -> nn.Module:
    """Returns the network to sample with: the moving average ``NAME_ema`` if there is one, else ``name``.

    Raises:
        UserError: there is no such network.
    """
    if name not in networks:
        raise UserError(f"the trainer has no network {name!r}; it has {', '.join(networks)}")
    return networks.get(f"{name}_ema", networks[name])
