"""A trained generator: its weights, the facts beside them, and the network they belong to."""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from pydoc import locate
from typing import Any, NamedTuple

import torch
from torch import nn

from common.data.intensity import Window, window_by_name
from common.errors import UserError
from common.files import read_json
from common.networks.misfit import misfit

logger = logging.getLogger(__name__)
TRUSTED = ("bundles.", "common.", "monai.networks.")
# Twelve bits, as scanners write them: what 0 and 1 become where a model knows no HU.
PLAIN_UNITS = Window(0, 4095)


class Scale(NamedTuple):
    """What a model's 0 and 1 are in the files it writes, the unit, and what is to be said of it."""

    window: Window
    unit: str
    note: str = ""

    def __str__(self) -> str:
        return f"{self.window.lower:g}..{self.window.upper:g} {self.unit}{self.note}"


def model_info(ckpt_path: str | os.PathLike[str]) -> dict[str, Any]:
    """The JSON beside the model (``model.json`` for ``model.pt``); empty where there is none.

    Raises:
        UserError: the file is there but unreadable.
    """
    path = Path(ckpt_path).with_suffix(".json")
    return dict(read_json(path)) if path.is_file() else {}


def network_for(ckpt_path: str | os.PathLike[str], otherwise: nn.Module) -> nn.Module:
    """The untrained network that the model at ``ckpt_path`` belongs to; ``otherwise`` where nothing says so.

    So a model trained with an overlay is evaluated and used without naming the overlay again.

    Raises:
        UserError: the model names a class outside of this project and MONAI's networks, none that exists, or
            arguments that it does not take.
    """
    network = model_info(ckpt_path).get("network")
    if not network:
        return otherwise
    target = str(network["target"])
    kind = locate(target) if target.startswith(TRUSTED) else None
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise UserError(
            f"{Path(ckpt_path).with_suffix('.json')}: '{target}' is no network of this project; "
            "delete the entry"
        )
    try:
        return kind(**network["arguments"])
    except TypeError as error:
        raise UserError(
            f"{Path(ckpt_path).with_suffix('.json')}: '{target}' does not take its arguments ({error}); "
            "use the version that trained the model"
        ) from error


def model_window(info: Mapping[str, Any], fallback: str = "lung") -> Window:
    """The HU window of a model's [-1, 1]; says in one line where that is nominal only."""
    if info.get("nominal_hu", False):
        logger.warning("this model learned from 8-bit slices: HU in its output are nominal, not measured")
    return window_by_name(info.get("window_hu", fallback))


def model_scale(info: Mapping[str, Any], fallback: str = "angiography") -> Scale:
    """HU in the model's window, or `PLAIN_UNITS` where it learned from percentiles, as of MR."""
    if info.get("is_hu", True):
        return Scale(model_window(info, fallback), "HU")
    ends = f"{info['intensity']['lower']:g} and {info['intensity']['upper']:g}"
    return Scale(PLAIN_UNITS, "units", f", the percentiles {ends} of what the model learned from: no HU")


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
    except (OSError, EOFError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
        raise UserError(f"{file}: not a readable model; train again or restore the file") from error
    try:
        network.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        why = misfit(network, state)
        raise UserError(
            f"{file}: does not fit the network{f' ({why})' if why else ''}; "
            "restore the .json beside it or the configs"
        ) from error
    return network.eval()
