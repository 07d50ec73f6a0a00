"""The two sums of routing against their formulas, and their derivatives of two orders."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from common.capsules import (
    PrimaryCapsules,
    RoutingCapsules,
    agreement,
    lengths,
    margin_loss,
    routing_coefficients,
    squash,
    weighted_sum,
)
from common.errors import UserError
from common.losses.adversarial import adversarial_loss


def tensors() -> dict[str, Tensor]:
    """Random float64 ones by their names in the formulas."""
    torch.manual_seed(0)
    b, j, i, k, d = 2, 3, 4, 2, 3
    shapes = {"c": (b, j, i), "u": (b, k, i), "w": (j, d, k, i), "v": (b, j, d)}
    return {
        name: torch.randn(shape, dtype=torch.float64, requires_grad=True) for name, shape in shapes.items()
    }


SUMS = {weighted_sum: ("cuw", "bji,bki,jdki->bjd"), agreement: ("uwv", "bki,jdki,bjd->bji")}


@pytest.mark.parametrize("function", SUMS)
def test_the_sum_is_that_of_its_formula(function: Callable[..., Tensor]) -> None:
    names, formula = SUMS[function]
    given = [tensors()[name] for name in names]
    assert torch.allclose(function(*given), torch.einsum(formula, *given))


@pytest.mark.parametrize("function", SUMS)
def test_derivatives_of_both_orders_agree_with_differences(function: Callable[..., Tensor]) -> None:
    given = [tensors()[name] for name in SUMS[function][0]]
    assert torch.autograd.gradcheck(function, given)
    assert torch.autograd.gradgradcheck(function, given, fast_mode=True)


def test_nothing_is_computed_for_what_needs_no_gradient() -> None:
    c, u, w = (tensors()[name] for name in "cuw")
    weighted_sum(c.detach(), u, w.detach()).sum().backward()
    assert u.grad is not None and c.grad is None and w.grad is None


def test_classes() -> None:
    lengths = torch.tensor([[0.95, 0.05, 0.3], [0.5, 0.6, 0.1]])
    # sample 1: 0.5 * 0.2^2 for the third class; sample 2: 0.3^2 for the second and 0.5 * 0.4^2 for the first
    assert float(margin_loss(lengths, torch.tensor([0, 1]))) == pytest.approx((0.02 + 0.09 + 0.08) / 2)


def test_nothing_is_paid_beyond_the_margins() -> None:
    assert float(margin_loss(torch.tensor([[0.9, 0.1]]), torch.tensor([0]))) == pytest.approx(0, abs=1e-12)


def test_the_game() -> None:
    game = adversarial_loss("margin")
    real, fake = torch.tensor([0.7, 1.0]), torch.tensor([0.5, 0.0])
    assert float(game.discriminator_loss(real, fake)) == pytest.approx(0.04 / 2 + 0.08 / 2)
    assert float(game.generator_loss(fake)) == pytest.approx((0.16 + 0.81) / 2)
    assert game.threshold == 0.5


def test_a_capsule_is_the_channels_of_one_map_at_one_place() -> None:
    torch.manual_seed(0)
    layer = PrimaryCapsules(3, maps=2, size=4, kernel=3, stride=2, padding=1)
    features = torch.randn(5, 3, 6, 8)
    capsules = layer(features)
    assert capsules.shape == (5, 2 * 3 * 4, 4)
    values = layer.convolution(features)  # (5, 8, 3, 4)
    assert torch.allclose(capsules[1, 12 + 2 * 4 + 3], squash(values[1, 4:8, 2, 3]))
    assert torch.allclose(capsules[2, 5], squash(values[2, 0:4, 1, 1]))


def test_the_published_layer_makes_1152_capsules_of_8() -> None:
    assert PrimaryCapsules(256)(torch.zeros(1, 256, 20, 20)).shape == (1, 1152, 8)


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


@pytest.mark.parametrize(("length", "expected"), [(0.5, 0.2), (1.0, 0.5), (2.0, 0.8), (100.0, 0.9999)])
def test_a_length_of_s_becomes_s_squared_over_one_plus_s_squared(length: float, expected: float) -> None:
    direction = torch.tensor([0.6, 0.0, -0.8], dtype=torch.float64)
    result = squash(length * direction)
    assert torch.allclose(result, expected * direction, atol=1e-5)


def test_each_vector_of_a_tensor_is_squashed_by_itself() -> None:
    vectors = torch.randn(2, 3, 4, dtype=torch.float64)
    alone = torch.stack([torch.stack([squash(vector) for vector in row]) for row in vectors])
    assert torch.equal(squash(vectors), alone)


@pytest.mark.parametrize("function", [squash, lengths])
def test_value_and_gradients_of_two_orders_are_finite_at_zero(function) -> None:  # type: ignore[no-untyped-def]
    zero = torch.zeros(2, 5, requires_grad=True)
    value = function(zero)
    (first,) = torch.autograd.grad(value.sum(), zero, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), zero)
    assert value.abs().max() < 1e-5
    assert first.isfinite().all() and second.isfinite().all()


def test_gradients_agree_with_differences() -> None:
    vectors = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(squash, vectors)
    assert torch.autograd.gradgradcheck(squash, vectors)


def test_lengths() -> None:
    assert torch.allclose(lengths(torch.tensor([[3.0, 4.0], [0.0, -2.0]])), torch.tensor([5.0, 2.0]))
