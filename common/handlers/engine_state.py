"""Access to the state of a training engine, for handlers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from ignite.engine import Engine
from torch import nn

from common.errors import UserError


def logs(engine: Engine) -> dict[str, float]:
    """Returns the losses and measures of this iteration (``engine.state.logs``); handlers may add to them."""
    state: Any = engine.state
    return state.logs


def networks(engine: Engine) -> Mapping[str, nn.Module]:
    """Returns the trainer's networks by name."""
    trainer: Any = engine
    return trainer.networks


def batches_per_epoch(engine: Engine) -> int:
    """Returns the number of batches that the trainer's sampler gives in an epoch."""
    trainer: Any = engine
    return trainer.stream.batches_per_epoch


def logged(engine: Engine, name: str) -> float:
    """Returns the value of ``name`` in ``engine.state.logs`` (this iteration).

    Raises:
        UserError: the trainer logs no such name.
    """
    values = logs(engine)
    if name not in values:
        raise UserError(f"handlers: the trainer logs no {name!r}; it logs {', '.join(values)}")
    return float(values[name])


def prediction(engine: Engine) -> torch.Tensor:
    """Returns the images (B, C, H, W) generated in this iteration, also if MONAI has decollated them."""
    output: Any = engine.state.output
    if isinstance(output, Mapping):
        return output["pred"]
    return torch.stack([item["pred"] for item in output])  # (B, C, H, W)


def contrasts(engine: Engine) -> torch.Tensor:
    """Returns the standard deviation over the pixels of each image generated in this iteration: (B,).

    It takes the first channel of generators with several, and the classes of a classifier's output (B, K).
    """
    predicted = prediction(engine).detach().float()
    shown = predicted if predicted.ndim == 2 else predicted[:, 0]
    return shown.flatten(1).std(dim=1)


def epoch_due(engine: Engine, interval: int) -> bool:
    """Tells whether this is the last iteration of every ``interval``-th epoch; never for 0."""
    state: Any = engine.state
    return bool(interval > 0 and state.iteration % (interval * state.epoch_length) == 0)
