"""Decisions that all processes of a distributed run must take together."""

from __future__ import annotations

import ignite.distributed as idist


def is_main() -> bool:
    """True in the process that writes files and shows progress (rank 0)."""
    return bool(idist.get_rank() == 0)


def any_rank(flag: bool) -> bool:
    """True on every process where ``flag`` is true on at least one; all processes must call it.

    A process that stops alone would leave the others waiting for its gradients.
    """
    if idist.get_world_size() == 1:
        return flag
    return bool(idist.all_reduce(int(flag), op="MAX"))
