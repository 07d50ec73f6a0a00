"""How a network is applied: in which arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from monai.inferers import Inferer
from torch import Tensor

from common.training.precision import Precision


class PrecisionInferer(Inferer):
    """Applies the network in the arithmetic of ``precision``, without any record of it for gradients.

    MONAI's evaluators have mixed precision on GPUs only.

    Args:
        precision: has prepared the network; its layout and type are used.
    """

    def __init__(self, precision: Precision) -> None:
        super().__init__()
        self.precision = precision

    @torch.inference_mode()
    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        """The network's output in float32."""
        with self.precision.autocast():
            output: Tensor = network(inputs, *args, **kwargs)
        return output.float()
