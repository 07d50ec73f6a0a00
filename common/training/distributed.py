"""One process or many: what training asks of `ignite.distributed`, and the calls that it does not have.

``rank()``, ``ranks()`` and ``barrier()`` are ignite's: 0, 1 and nothing in a single process.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import ignite.distributed as idist
import torch
from ignite.distributed import barrier as barrier
from ignite.distributed import get_rank as rank
from ignite.distributed import get_world_size as ranks
from torch import Tensor, nn
from torch import distributed as dist


def local_device(device: str | torch.device | None = None) -> torch.device:
    """This process's device: ``device`` if given, else its own GPU (``LOCAL_RANK``), else the CPU."""
    if device is not None:
        return torch.device(device)
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    return torch.device("cpu")


def start(device: str | torch.device) -> None:
    """Joins the process group that ``torchrun`` announced in the environment: nccl on GPUs, gloo on CPUs."""
    device = torch.device(device)
    if "WORLD_SIZE" not in os.environ or dist.is_initialized():
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", **_store_of_restart())
    barrier()  # ignite learns of the group


def _store_of_restart() -> dict[str, Any]:
    """A part of the launcher's store for workers that it has started again; nothing for the first ones.

    The launcher keeps one store for all its attempts, and in it the addresses of dead workers, which the new
    ones would call. Over several nodes each launcher counts for itself; there
    ``TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1`` gives each attempt a store.
    """
    attempt = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))
    if not attempt or os.environ.get("GROUP_WORLD_SIZE") != "1":
        return {}
    store, number, count = next(dist.rendezvous("env://"))
    return {"store": dist.PrefixStore(f"attempt {attempt}", store), "rank": number, "world_size": count}


def stop() -> None:
    """Leaves the process group, if one was joined."""
    idist.finalize()


def is_main() -> bool:
    """Tells whether this process writes files and shows progress (rank 0)."""
    return rank() == 0


def any_rank(flag: bool) -> bool:
    """Tells every process whether ``flag`` is true on at least one; all processes must call it.

    A process that stops alone would leave the others waiting for its gradients.
    """
    return bool(idist.all_reduce(int(flag), "MAX"))


def average(tensor: Tensor) -> Tensor:
    """Returns the mean over all processes, in place (``tensor`` itself in one process)."""
    if ranks() > 1:
        total = idist.all_reduce(tensor)
        assert isinstance(total, Tensor)
        tensor.copy_(total).div_(ranks())
    return tensor


def average_all(tensors: Iterable[Tensor]) -> None:
    """Replaces each floating-point tensor by its mean over all processes, with one collective call."""
    chosen = [tensor for tensor in tensors if tensor.is_floating_point()]
    if ranks() == 1 or not chosen:
        return
    means = average(torch.cat([tensor.flatten().float() for tensor in chosen]))
    for tensor, mean in zip(chosen, means.split([tensor.numel() for tensor in chosen]), strict=True):
        tensor.copy_(mean.view_as(tensor))


def share_weights(networks: Iterable[nn.Module]) -> None:
    """Copies parameters and buffers of process 0 to all others."""
    if ranks() == 1:
        return
    for network in networks:
        for tensor in network.state_dict().values():
            tensor.copy_(idist.broadcast(tensor, src=0))


def part_random_numbers() -> None:
    """Gives each process random numbers of its own (dropout, latents); process 0 keeps the run's seed.

    All start from one seed, which makes their networks equal; their batches' noise must not be.
    """
    if rank() > 0:
        torch.manual_seed(torch.initial_seed() + rank())


def gather(value: Any) -> list[Any]:
    """``value`` of every process, in order of rank, on every process."""
    if ranks() == 1:
        return [value]
    values: list[Any] = [None] * ranks()
    dist.all_gather_object(values, value)  # ignite's makes tensors of numbers
    return values
