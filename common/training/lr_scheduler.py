"""Learning-rate schedules by epoch."""

from __future__ import annotations

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler


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
