"""Normalisation layers by their names."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from monai.networks.layers.utils import get_norm_layer
from torch import nn

from common.errors import UserError

NONE = "none"
NORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "batch": ("batch", {}),
    "instance": ("instance", {"affine": True}),
    "layer": ("group", {"num_groups": 1}),
}
"""In MONAI's terms, those that are the same for any number of channels."""
GROUP, GROUP_CHANNELS = "group", 16
"""Channels of a group (Wu and He 2018, table 3)."""


def norm_layer(name: str, channels: int) -> nn.Module:
    """The normalisation of that name: (B, C, h, w) -> the same.

    ``batch`` normalises by the batch's statistics in training and by their running averages in evaluation;
    the two differ most where a batch is one image. The others see one image at a time, in training as later:
    ``instance`` each channel, ``layer`` all channels together, ``group`` 16 channels together (fewer where
    they do not divide C). All have a learned scale and shift of each channel; ``none`` does nothing.

    Args:
        channels: C.
    Raises:
        UserError: no such norm.
    """
    if name == NONE:
        return nn.Identity()
    if name == GROUP:
        return get_norm_layer(
            (GROUP, {"num_groups": channels // math.gcd(channels, GROUP_CHANNELS)}), 2, channels
        )
    return get_norm_layer(_known(name), spatial_dims=2, channels=channels)


def monai_norm(norm: str | Sequence[Any] | None) -> tuple[str, dict[str, Any]] | None:
    """A norm for the networks of MONAI.

    Args:
        norm: one of `NORMS`' names or ``none``, by itself or as a list's only entry; or a list of a name and
            arguments in MONAI's own terms, such as ``[group, {num_groups: 4}]``.
    Raises:
        UserError: no such norm, or ``group`` without its number of groups.
    """
    name, arguments = _entries(norm)
    if name == NONE:
        return None
    if name.lower() == GROUP and "num_groups" not in (arguments or {}):
        raise UserError("norm 'group' needs its number of groups here: [group, {num_groups: 4}]")
    return _known(name.lower()) if arguments is None else (name, dict(arguments))


def _entries(norm: str | Sequence[Any] | None) -> tuple[str, Mapping[str, Any] | None]:
    """Name and arguments, None where there are none."""
    entries = [norm or NONE] if norm is None or isinstance(norm, str) else list(norm)
    name, arguments = (*entries, None)[:2] if entries else (None, None)
    if len(entries) > 2 or not isinstance(name, str) or not isinstance(arguments, Mapping | None):
        raise UserError(f"norm {norm!r}: give a name, or a list of a name and its arguments")
    return name, arguments


def _known(name: str) -> tuple[str, dict[str, Any]]:
    if name not in NORMS:
        raise UserError(f"norm {name!r} is unknown; choose one of {', '.join((*NORMS, GROUP, NONE))}")
    return NORMS[name]
