"""What acts on weights around an optimiser's step: learning-rate schedules, moving averages, clipping."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from ignite.engine import Engine, Events
from ignite.handlers import EMAHandler
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from common.errors import UserError


def linear_decay(optimizer: Optimizer, max_epochs: int, start: float = 0.5) -> LambdaLR:
    """Returns a schedule by epoch: the full rate up to ``start * max_epochs``, then linearly down to 0.

    Isola et al. 2017 and Zhu et al. 2017 decay over the second half (``start`` 0.5); 1 keeps the rate.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        >>> schedule = linear_decay(optimizer, max_epochs=4)
        >>> [schedule.lr_lambdas[0](epoch) for epoch in range(5)]
        [1.0, 1.0, 1.0, 0.5, 0.0]
    """
    constant = start * max_epochs

    def factor(epoch: int) -> float:
        if start >= 1 or epoch < constant:
            return 1.0
        return max(0.0, (max_epochs - epoch) / (max_epochs - constant))

    return LambdaLR(optimizer, factor)


def apply_schedule(scheduler: LRScheduler) -> None:
    """Sets the optimiser's rates to those of the schedule's current epoch, from its groups' ``initial_lr``.

    A resume file holds the rates of the schedule it was saved with; with another ``max_epochs`` or learning
    rate they differ. Schedules that only know their last step (not a `LambdaLR`) keep their shape.
    """
    groups = scheduler.optimizer.param_groups
    scheduler.base_lrs = [group["initial_lr"] for group in groups]
    if isinstance(scheduler, LambdaLR):
        for group, rate, factor in zip(groups, scheduler.base_lrs, scheduler.lr_lambdas, strict=True):
            group["lr"] = rate * factor(scheduler.last_epoch)


class WeightAverage:
    """Exponential moving average of a network's weights (Yazici et al. 2019), by ignite's `EMAHandler`.

    After every iteration: ``average <- decay * average + (1 - decay) * weights``.

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
        self._handler = EMAHandler(network, handle_buffers="update") if half_life else None
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


def clip_weights(optimizer: Optimizer, bound: float | None) -> Optimizer:
    """Makes an optimiser clip its weights to [-bound, bound] after every step, and returns it.

    Its attribute ``weight_clip`` holds the bound.

    Args:
        bound: 0.01 in Arjovsky et al. 2017; None clips nothing.
    Raises:
        UserError: a bound that is not above 0.

    Example:
        >>> weight = nn.Parameter(torch.ones(2))
        >>> optimizer = clip_weights(torch.optim.SGD([weight], lr=0.1), bound=0.5)
        >>> weight.sum().backward()
        >>> _ = optimizer.step()
        >>> weight.tolist()
        [0.5, 0.5]
    """
    if bound is None:
        return optimizer
    if not bound > 0:
        raise UserError(f"weight_clip {bound}: give a number above 0, or null for none")

    @torch.no_grad()
    def clip(stepped: Optimizer, *_arguments: Any) -> None:
        for group in stepped.param_groups:
            for weight in group["params"]:
                weight.clamp_(-bound, bound)

    optimizer.register_step_post_hook(clip)
    optimizer.weight_clip = bound  # type: ignore[attr-defined]  # see shape_check.check_critic
    return optimizer


def options_of(optimizer: Optimizer) -> list[dict[str, Any]]:
    """Returns learning rate, weight decay, betas and so on of each of the optimiser's groups."""
    return [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]


def set_options(optimizer: Optimizer, options: Sequence[Mapping[str, Any]]) -> None:
    """Gives the groups these options; a rate that a schedule has changed is changed by the same factor."""
    for group, given in zip(optimizer.param_groups, options, strict=True):
        first = group.get("initial_lr")
        rate = given["lr"]
        if first:  # a schedule has changed the saved rate
            same = first == given["initial_lr"]
            rate = group["lr"] if same else group["lr"] / first * given["initial_lr"]
        group.update({**given, "lr": rate})
