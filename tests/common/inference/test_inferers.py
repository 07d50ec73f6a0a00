from __future__ import annotations

import torch
from torch import nn

from common.inference.inferers import PrecisionInferer
from common.training.precision import Precision


def test_arithmetic_follows_the_precision_and_the_output_is_float32() -> None:
    torch.manual_seed(0)
    network, inputs = nn.Linear(8, 4), torch.randn(5, 8)
    plain = PrecisionInferer(Precision("cpu"))(inputs, network)
    mixed = PrecisionInferer(Precision("cpu", amp="bf16"))(inputs, network)
    assert torch.equal(plain, network(inputs).detach())
    assert mixed.dtype is torch.float32 and torch.equal(mixed, mixed.bfloat16().float())
    assert 0 < (mixed - plain).abs().max() < 0.02


def test_further_inputs_reach_the_network_and_no_graph_is_kept() -> None:
    class Sum(nn.Module):
        def forward(self, first: torch.Tensor, second: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
            return (first + second) * scale

    ones = torch.ones(2, requires_grad=True)
    found = PrecisionInferer(Precision("cpu"))(ones, Sum(), 2 * ones, scale=3.0)
    assert found.tolist() == [9.0, 9.0] and not found.requires_grad and found.is_inference()
