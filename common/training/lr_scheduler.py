"""Learning-rate schedules by epoch."""

from __future__ import annotations

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler


def linear_decay(optimizer: Optimizer, max_epochs: int, start: float = 0.5) -> LambdaLR:
    """The full rate up to ``start * max_epochs``, then linearly down to 0 at the end.

    Isola et al. 2017 and Zhu et al. 2017 decay over the second half (``start`` 0.5); 1 keeps the rate.
    """
    constant = start * max_epochs

    def factor(epoch: int) -> float:
        if start >= 1 or epoch < constant:
            return 1.0
        return max(0.0, (max_epochs - epoch) / (max_epochs - constant))

    return LambdaLR(optimizer, factor)


def apply_schedule(scheduler: LRScheduler) -> None:
    """Gives the optimiser the rates that the schedule has for its present epoch.

    A resumed run brings the rates of the schedule it was saved with; with more epochs than that one had they
    are others. Schedules that only know their last step (not a `LambdaLR`) stay as they are.
    """
    if isinstance(scheduler, LambdaLR):
        groups = scheduler.optimizer.param_groups
        for group, rate, factor in zip(groups, scheduler.base_lrs, scheduler.lr_lambdas, strict=True):
            group["lr"] = rate * factor(scheduler.last_epoch)
