"""Parts of the resume state: the settings a run cannot change, and loading that says what does not fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from common.data.sampling import BatchStream
from common.errors import UserError
from common.networks.misfit import misfit

STATE_FORMAT = 1


def run_setting(stream: BatchStream, group: int, dtype: torch.dtype) -> dict[str, Any]:
    """What a resumed run must have in common with the one it goes on from.

    Args:
        group: batches an iteration takes.
        dtype: the arithmetic's type.
    """
    return {
        "samples": stream.length,
        "batch_size": stream.batch_size,
        "seed": stream.seed,
        "processes": stream.ranks,
        "batches per iteration": group,
        "precision": str(dtype),
    }


def check_setting(saved: Mapping[str, Any], present: Mapping[str, Any]) -> None:
    """Refuses to resume with other settings.

    Raises:
        UserError: names each setting, what it was and what it is.
    """
    changed = [
        f"{name} was {saved.get(name)}, is {value}"
        for name, value in present.items()
        if saved.get(name) != value
    ]
    if changed:
        raise UserError(
            f"cannot resume: {'; '.join(changed)}; use the run's settings or another --output_dir"
        )


def load_each(kind: str, parts: Mapping[str, Any], states: Mapping[str, Any]) -> None:
    """Loads each state into the part of the same name.

    Args:
        kind: what the parts are, for the message.
    Raises:
        UserError: other names, or a state that does not fit.
    """
    if set(parts) != set(states):
        raise UserError(
            f"cannot resume: {kind} were {sorted(states)}, are {sorted(parts)}; use the run's configs"
        )
    for name, part in parts.items():
        try:
            part.load_state_dict(states[name])
        except (RuntimeError, ValueError) as error:
            why = misfit(part, states[name]) if isinstance(part, nn.Module) else ""
            raise UserError(
                f"cannot resume: {kind} '{name}' differ from the saved ones{f' ({why})' if why else ''}; "
                "use the run's configs"
            ) from error
