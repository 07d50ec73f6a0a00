"""Why saved weights do not fit a network, in the words of the one who set the sizes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from torch import Tensor, nn


@runtime_checkable
class Sized(Protocol):
    """A network that can read its sizes off a state_dict."""

    def sizes(self, state: Mapping[str, Tensor]) -> dict[str, int]:
        """Sizes by name."""


def misfit(network: nn.Module, state: Mapping[str, Tensor]) -> str:
    """What differs, both values given; empty where nothing does or what it is cannot be told.

    Args:
        state: what `network` is to load.
    """
    own = network.state_dict()
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        return ""
    if isinstance(network, Sized):
        try:
            saved, present = network.sizes(state), network.sizes(own)
        except (KeyError, StopIteration):  # not even the same kind of network
            return ""
        return ", ".join(
            f"its {name} is {saved[name]}, the network's {size}"
            for name, size in present.items()
            if saved[name] != size
        )
    shapes = ((name, tuple(state[name].shape), tuple(own[name].shape)) for name in own if name in state)
    differing = ((name, there, here) for name, there, here in shapes if there != here)
    return next((f"its {name} is {there}, the network's {here}" for name, there, here in differing), "")
