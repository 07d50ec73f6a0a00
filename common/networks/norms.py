"""Normalisation layers by their names."""

from __future__ import annotations

import math
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


def monai_norm(norm: str | tuple[str, dict[str, Any]] | None) -> tuple[str, dict[str, Any]] | None:
    """A norm for the networks of MONAI: by one of `NORMS`' names or ``none``, else in MONAI's own terms.

    Raises:
        UserError: no such norm.
    """
    if norm is None or norm == NONE:
        return None
    if not isinstance(norm, str):
        name, arguments = norm
        return name, dict(arguments)
    return _known(norm.lower())


def _known(name: str) -> tuple[str, dict[str, Any]]:
    if name not in NORMS:
        raise UserError(f"norm {name!r} is unknown; choose one of {', '.join((*NORMS, GROUP, NONE))}")
    return NORMS[name]
