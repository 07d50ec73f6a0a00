"""Initial weights of adversarial networks, and readable messages for state_dict mismatches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol, runtime_checkable

from torch import Tensor, nn


def init_weights(network: nn.Module, deviation: float = 0.02) -> nn.Module:
    """Draws convolution weights from N(0, 0.02) and norm scales from N(1, 0.02), as DCGAN and pix2pix do.

    Networks with ``draws_own_weights`` keep their own, inside other networks too: without a norm, their depth
    depends on it.

    Example:
        >>> layer = init_weights(nn.Conv2d(64, 64, 3))
        >>> round(float(layer.weight.std()), 2), float(layer.bias.abs().max())
        (0.02, 0.0)
    """
    for module in _to_draw(network):
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0.0, deviation)
        elif isinstance(module, nn.BatchNorm2d | nn.InstanceNorm2d) and module.affine:
            nn.init.normal_(module.weight, 1.0, deviation)
            nn.init.zeros_(module.bias)
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and module.bias is not None:
            nn.init.zeros_(module.bias)
    return network


def _to_draw(module: nn.Module) -> Iterator[nn.Module]:
    """Yields a module and its submodules in order, without those that draw their own weights."""
    if getattr(module, "draws_own_weights", False):
        return
    yield module
    for child in module.children():
        yield from _to_draw(child)


@runtime_checkable
class Sized(Protocol):
    """A network that can read its sizes off a state_dict."""

    def sizes(self, state: Mapping[str, Tensor]) -> dict[str, int]:
        """Sizes by name."""


def describe_mismatch(network: nn.Module, state: Mapping[str, Tensor]) -> str:
    """Describes how a state_dict differs from a network's, with both values; empty if not at all or unknown.

    Example:
        >>> describe_mismatch(nn.Linear(3, 2), nn.Linear(4, 2).state_dict())
        "its weight is (2, 4), the network's (2, 3)"
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
