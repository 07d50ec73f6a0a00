"""Which weights a step may touch, and gradients averaged over processes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from common.training import distributed


@contextmanager
def frozen(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Turns ``requires_grad`` of all parameters off within the block and restores it after.

    A generator's step runs its images through the discriminator: frozen, the discriminator passes the
    gradient on to the images without computing gradients of its own weights.
    """
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Replaces each gradient by its mean over all processes, with one collective call.

    Used instead of ``DistributedDataParallel``, which cannot differentiate through
    ``torch.autograd.grad`` (gradient penalties) and wants one forward a backward; networks
    keep their names in the state_dict.
    """
    distributed.average_all(p.grad for p in parameters if p.grad is not None)
