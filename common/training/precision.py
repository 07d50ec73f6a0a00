"""Mixed precision, memory layout and compilation of networks."""

from __future__ import annotations

import logging
import shutil
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from common.errors import UserError

logger = logging.getLogger(__name__)
NAMES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def cpu_has_fast_bf16() -> bool:
    """Tells whether the CPU multiplies bfloat16 in hardware; else bf16 convolutions are 40 times slower."""
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "arm_bf16", "bf16"))


def choose_dtype(device: torch.device, amp: bool | str) -> torch.dtype:
    """Returns the dtype for the setting ``amp`` on ``device``.

    Args:
        amp: False for float32; True for the device's own fast type (bf16 where the hardware has it, else
            fp16 on GPUs and float32 on CPUs, with one line in the log); ``"bf16"`` or ``"fp16"`` to insist.
    Raises:
        UserError: another value of ``amp``, or fp16 on a CPU.

    Example:
        >>> choose_dtype(torch.device("cpu"), amp="bf16")
        torch.bfloat16
    """
    if isinstance(amp, str):
        if amp not in NAMES or (amp == "fp16" and device.type == "cpu"):
            raise UserError(
                f"amp: '{amp}' does not fit device '{device}'; use true, false, bf16 (or fp16 on a GPU)"
            )
        return NAMES[amp]
    if not amp:
        return torch.float32
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if cpu_has_fast_bf16():
        return torch.bfloat16
    logger.info("amp: this CPU has no bfloat16 arithmetic, float32 is used (--amp bf16 insists)")
    return torch.float32


def can_compile(device: torch.device) -> bool:
    """Tells whether ``torch.compile`` can work: it needs a C++ compiler on CPUs, Triton on GPUs."""
    if device.type == "cuda":
        from torch.utils._triton import has_triton

        return bool(has_triton())
    return any(shutil.which(name) for name in ("c++", "g++", "clang++"))


class Precision:
    """Autocast, loss scaling, memory layout and compilation for one device.

    Args:
        device: where the networks live.
        amp: see `choose_dtype`.
        channels_last: store images and weights channels last where that is faster: in bf16, and on GPUs.
        compile: run the networks through ``torch.compile``; skipped with one line in the log without a
            compiler, and for networks with a gradient penalty: compiled code has no second derivatives.

    Example:
        >>> precision = Precision("cpu")
        >>> network = precision.prepare(nn.Conv2d(1, 4, 3))
        >>> with precision.autocast():
        ...     network(precision.images(torch.zeros(1, 1, 8, 8))).dtype
        torch.float32
    """

    def __init__(
        self,
        device: str | torch.device,
        amp: bool | str = False,
        channels_last: bool = False,
        compile: bool = False,
    ) -> None:
        self.device = torch.device(device)
        self.dtype = choose_dtype(self.device, amp)
        faster = self.device.type != "cpu" or self.dtype is not torch.float32  # on a CPU float32 ran 0.9x
        self.memory_format = torch.channels_last if channels_last and faster else torch.contiguous_format
        self.compile = compile
        self.scaler = IterationScaler(self.device.type, enabled=self.dtype is torch.float16)

    def prepare(self, network: nn.Module, name: str = "network", penalised: bool = False) -> nn.Module:
        """Moves ``network`` to device and layout and compiles it if asked; returns the same object.

        Args:
            name: for the message.
            penalised: it has a gradient penalty.
        """
        volumes = any(parameter.ndim == 5 for parameter in network.parameters())  # 3-D: no such layout
        layout = torch.contiguous_format if volumes else self.memory_format
        network.to(device=self.device, memory_format=layout)  # type: ignore[call-overload]
        if not self.compile:
            return network
        if not can_compile(self.device):
            logger.info("compile: no compiler found on this machine, running eagerly")
        elif penalised:
            logger.info(f"compile: {name} runs eagerly, its gradient penalty needs second derivatives")
        else:
            network.compile()
        return network

    def images(self, tensor: Tensor) -> Tensor:
        """Brings a batch (B, C, H, W) or any other tensor to the device, images in the chosen layout."""
        if tensor.ndim == 4:
            return tensor.to(self.device, non_blocking=True, memory_format=self.memory_format)
        return tensor.to(self.device, non_blocking=True)

    def autocast(self) -> AbstractContextManager[None]:
        """The context in which forward passes run."""
        if self.dtype is torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def backward(self, loss: Tensor) -> None:
        """Backpropagates the (scaled) loss."""
        self.scaler.scale(loss).backward()

    def step(self, optimizer: Optimizer) -> None:
        """Takes the optimiser's step on unscaled gradients; skips it where scaled ones overflowed."""
        self.scaler.step(optimizer)

    def update(self) -> None:
        """Adapts the loss scale to overflows since the last call; once an iteration."""
        self.scaler.update()


class IterationScaler(torch.amp.GradScaler):
    """A GradScaler whose optimisers may step several times between two updates, such as a critic's.

    Torch's own raises on a second step of one optimiser. This one keeps the overflow record of every step
    until ``update``, which considers all of them.
    """

    def step(self, optimizer: Optimizer, *args: Any, **kwargs: Any) -> float | None:
        """See GradScaler."""
        result = super().step(optimizer, *args, **kwargs)
        if self.is_enabled():
            record = self._per_optimizer_states.pop(id(optimizer))
            self._per_optimizer_states[id(record)] = record
        return result
