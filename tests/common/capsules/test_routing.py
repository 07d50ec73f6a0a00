"""The routing against procedure 1 written out in loops, its gradients, and what it keeps."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from common.capsules.routing import RoutingCapsules, routing_coefficients
from common.errors import UserError

IN, IN_SIZE, OUT, OUT_SIZE = 5, 3, 4, 2


def layer(iterations: int = 3, gradients: str = "last", squashed: bool = True) -> RoutingCapsules:
    """A small layer in float64."""
    torch.manual_seed(0)
    made = RoutingCapsules(IN, IN_SIZE, OUT, OUT_SIZE, iterations, gradients, squashed)
    return made.double()


def capsules(batch: int = 2) -> torch.Tensor:
    """Input capsules (batch, IN, IN_SIZE)."""
    torch.manual_seed(1)
    return torch.randn(batch, IN, IN_SIZE, dtype=torch.float64)


def literal(weight: np.ndarray, inputs: np.ndarray, iterations: int, squashed: bool = True) -> np.ndarray:
    """Procedure 1 and equations 1 to 3 of Sabour et al. 2017 for one sample, capsule by capsule."""
    votes = [[weight[j, :, :, i] @ inputs[i] for j in range(OUT)] for i in range(IN)]  # u_hat of j given i
    logits = [[0.0] * OUT for _ in range(IN)]
    for _ in range(iterations):
        couplings = []
        for i in range(IN):
            total = sum(math.exp(value) for value in logits[i])
            couplings.append([math.exp(value) / total for value in logits[i]])
        sums = [sum(couplings[i][j] * votes[i][j] for i in range(IN)) for j in range(OUT)]
        outputs = []
        for s in sums:
            squared = float(s @ s)
            outputs.append(squared / (1 + squared) * s / math.sqrt(squared))
        for i in range(IN):
            for j in range(OUT):
                logits[i][j] += float(votes[i][j] @ outputs[j])
    return np.array(outputs if squashed else sums)


@pytest.mark.parametrize("squashed", [True, False])
@pytest.mark.parametrize("iterations", [1, 2, 3, 5])
def test_it_is_the_published_procedure(iterations: int, squashed: bool) -> None:
    network, inputs = layer(iterations, squashed=squashed), capsules()
    found = network(inputs).detach().numpy()
    weight = network.weight.detach().numpy()
    expected = np.stack([literal(weight, sample, iterations, squashed) for sample in inputs.numpy()])
    assert np.abs(found - expected).max() < 1e-9
    assert np.abs(expected).max() > 0.05


def test_both_kinds_of_gradients_give_the_same_outputs() -> None:
    assert torch.equal(layer(gradients="last")(capsules()), layer(gradients="all")(capsules()))


def test_gradients_through_all_iterations_agree_with_differences() -> None:
    network, inputs = layer(gradients="all"), capsules().requires_grad_()

    def outputs(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(network, {"weight": weight}, (x,))

    assert torch.autograd.gradcheck(outputs, (inputs, network.weight), fast_mode=True)
    assert torch.autograd.gradgradcheck(outputs, (inputs, network.weight), fast_mode=True)


def test_gradients_through_the_last_take_the_coefficients_for_constants() -> None:
    network, inputs = layer(squashed=False), capsules().requires_grad_()
    (found,) = torch.autograd.grad(network(inputs).square().sum(), inputs)
    constant = routing_coefficients(inputs.detach().transpose(1, 2), network.weight.detach())
    sums = torch.einsum("bji,bik,jdki->bjd", constant, inputs, network.weight)
    (expected,) = torch.autograd.grad(sums.square().sum(), inputs)
    assert torch.allclose(found, expected)


@pytest.mark.parametrize("gradients", ["last", "all"])
def test_a_penalty_on_the_gradient_reaches_the_weights(gradients: str) -> None:
    network, inputs = layer(gradients=gradients), capsules().requires_grad_()
    (slope,) = torch.autograd.grad(network(inputs).sum(), inputs, create_graph=True)
    (slope.square().sum() - 1).square().backward()
    assert network.weight.grad is not None and network.weight.grad.abs().max() > 0


def test_coefficients_sum_to_one_and_favour_the_capsule_that_is_agreed_on() -> None:
    inputs = torch.ones(1, 1, 3)
    weight = torch.zeros(2, 1, 1, 3)
    weight[0] = torch.tensor([1.0, 1.0, 1.0])  # all vote alike
    weight[1] = torch.tensor([1.0, -1.0, 0.0])  # votes cancel
    found = routing_coefficients(inputs, weight)
    assert found.shape == (1, 2, 3)
    assert torch.allclose(found.sum(1), torch.ones(1, 3))
    assert (found[0, 0] > 0.6).all()


def test_outputs_begin_about_as_long_as_the_inputs() -> None:
    torch.manual_seed(0)
    inputs = torch.nn.functional.normalize(torch.randn(8, 512, 8), dim=2) * 0.5
    outputs = RoutingCapsules(512, 8, 6, 16, iterations=1, squashed=False)(inputs)
    assert 0.3 < outputs.norm(dim=2).mean() < 0.7


def test_it_stays_in_float32_under_autocast() -> None:
    network = layer().float()
    with torch.autocast("cpu", torch.bfloat16):
        outputs = network(capsules().bfloat16())
    assert outputs.dtype == torch.float32


def test_a_wrong_setting_is_refused() -> None:
    with pytest.raises(UserError, match="last or all"):
        RoutingCapsules(1, 1, 1, 1, gradients="first")
    with pytest.raises(UserError, match="at least 1"):
        RoutingCapsules(1, 1, 1, 1, iterations=0)
