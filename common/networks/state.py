"""The state of networks: initial weights, modes, frozen parameters, flat and mismatched state_dicts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


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


@contextmanager
def evaluating(*networks: nn.Module) -> Iterator[None]:
    """Puts ``networks`` in evaluation mode and restores the mode of every submodule at the end.

    ``monai.networks.eval_mode`` ends with ``network.train()``, which would also wake layers that were frozen
    in evaluation mode. It leaves gradients alone (``torch.inference_mode()``).

    Example:
        >>> network = nn.Sequential(nn.Dropout().eval(), nn.Dropout())
        >>> with evaluating(network):
        ...     [module.training for module in network]
        [False, False]
        >>> [module.training for module in network]
        [False, True]
    """
    modules = [module for network in networks for module in network.modules()]
    modes = [module.training for module in modules]
    try:
        for network in networks:
            network.eval()
        yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode


@contextmanager
def frozen(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Turns ``requires_grad`` of all parameters off within the block.

    A frozen discriminator passes the gradient on to a generator's images without computing those of its own
    weights.
    """
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


COMPILED_PREFIX = "_orig_mod."


def flat_state_dict(network: nn.Module) -> dict[str, torch.Tensor]:
    """Returns the state_dict of the bare network: contiguous CPU tensors, no prefixes of wrappers."""
    bare = network.module if isinstance(network, DistributedDataParallel) else network
    return {
        name.replace(COMPILED_PREFIX, ""): value.detach().cpu().contiguous().clone()
        for name, value in bare.state_dict().items()
    }
