"""Dynamic routing, forward and backward, against one with coefficients as large as predictions."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from common.capsules import RoutingCapsules, squash
from tests.bench.harness import Result, Work, alternate, benchmark, extra_megabytes, seconds

BATCH, IN, IN_SIZE, OUT, OUT_SIZE, ITERATIONS = 64, 2048, 8, 10, 16, 3
REPEATS = 5
Route = Callable[[Tensor, Tensor], Tensor]


@benchmark("capsule_routing")
def last_iteration() -> Result:
    """Gradients through the last iteration, in both."""
    return compared("capsule_routing", "last", 5.0)


@benchmark("capsule_routing_all")
def all_iterations() -> Result:
    """Gradients through all iterations, in both."""
    return compared("capsule_routing_all", "all", 2.5)


@benchmark("capsule_routing_memory")
def memory() -> Result:
    """The larger peak of the two ways, each against the plain one's with the same gradients."""
    ratios = {}
    for gradients in ("last", "all"):
        ours = extra_megabytes(functools.partial(ours_work, gradients))
        plain = extra_megabytes(functools.partial(plain_work, gradients))
        ratios[plain / ours] = ours, plain
    worst = min(ratios)
    return Result("capsule_routing_memory", worst, 3.0, *ratios[worst], "MB", 1)


def compared(name: str, gradients: str, goal: float) -> Result:
    """Seconds of ours and of the plain routing, taken in turns, on one core."""
    torch.set_num_threads(1)
    fast_work, slow_work = ours_work(gradients), plain_work(gradients)
    fast, slow = alternate(lambda: seconds(fast_work), lambda: seconds(slow_work), REPEATS)
    return Result(name, slow / fast, goal, fast, slow, "s", REPEATS)


def layer(gradients: str) -> RoutingCapsules:
    """The layer that both ways compute."""
    torch.manual_seed(0)
    return RoutingCapsules(IN, IN_SIZE, OUT, OUT_SIZE, ITERATIONS, gradients)


def ours_work(gradients: str) -> Work:
    """`RoutingCapsules`."""
    return forward_backward(layer(gradients))


def plain_work(gradients: str) -> Work:
    """`plain_routing` with the same weight."""
    network = layer(gradients)
    return forward_backward(functools.partial(plain_routing, network.weight, gradients), network.weight)


def forward_backward(network: Callable[[Tensor], Tensor], weight: Tensor | None = None) -> Work:
    """One pass over the same capsules, after a first one that has loaded the libraries' own buffers."""
    capsules = squash(torch.randn(BATCH, IN, IN_SIZE)).requires_grad_()
    target = torch.randn(BATCH, OUT, OUT_SIZE)
    leaves = [capsules, *(network.parameters() if isinstance(network, RoutingCapsules) else [weight])]

    def work() -> None:
        torch.autograd.grad((network(capsules) * target).sum(), leaves)

    work()
    return work


def plain_routing(weight: Tensor, gradients: str, capsules: Tensor) -> Tensor:
    """Procedure 1 as usually written: predictions (B, J, I, D), and logits expanded to their size."""
    predictions = torch.einsum("jdki,bik->bjid", weight, capsules)
    constant = predictions if gradients == "all" else predictions.detach()
    logits = torch.zeros_like(predictions)
    for _ in range(ITERATIONS - 1):
        outputs = squash((logits.softmax(1) * constant).sum(2, keepdim=True))  # (B, J, 1, D)
        logits = logits + (constant * outputs).sum(3, keepdim=True)
    return squash((logits.softmax(1) * predictions).sum(2))  # (B, J, D)
