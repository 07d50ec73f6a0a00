"""A generator's weights: a flat state_dict on disk, loaded strictly or refused in one line."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import torch
from torch import nn

from common.errors import UserError


def load_weights(network: nn.Module, path: str | os.PathLike[str], how_to_train: str) -> nn.Module:
    """Loads the flat state_dict at ``path`` into ``network`` (same object, eval mode, its own device).

    Args:
        how_to_train: the command that makes the file, told to whoever lacks it.
    Raises:
        UserError: the file is missing, unreadable, or belongs to another network.
    """
    file = Path(path)
    if not file.is_file():
        raise UserError(f"{file}: no trained model yet; train first: {how_to_train}")
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
        network.load_state_dict(state)
    except (OSError, EOFError, pickle.UnpicklingError) as error:
        raise UserError(f"{file}: not a readable model; train again or restore the file") from error
    except (RuntimeError, TypeError, AttributeError) as error:
        raise UserError(
            f"{file}: does not fit the configured network; give the overlays that it was trained with"
        ) from error
    return network.eval()
