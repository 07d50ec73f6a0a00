"""Learning-rate schedules by epoch."""

from __future__ import annotations

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def linear_decay(optimizer: Optimizer, max_epochs: int, start: float = 0.5) -> LambdaLR:
    """The full rate up to ``start * max_epochs``, then linearly down to 0 at the end.

    Isola et al. 2017 and Zhu et al. 2017 decay over the second half (``start`` 0.5); 1 keeps the rate.
    """
    constant = start * max_epochs

    def factor(epoch: int) -> float:
        return 1.0 if epoch < constant else max(0.0, (max_epochs - epoch) / max(max_epochs - constant, 1e-9))

    return LambdaLR(optimizer, factor)
