from __future__ import annotations

import torch

from bundles.patchgan_cardiac.networks import ContrastGenerator


def network() -> ContrastGenerator:
    torch.manual_seed(0)
    return ContrastGenerator(levels=4, width=8).eval()


def test_a_network_that_says_nothing_gives_back_its_condition() -> None:
    generator, condition = network(), torch.rand(2, 1, 32, 32) * 2 - 1
    for parameter in generator.change.last.parameters():
        torch.nn.init.zeros_(parameter)
    assert torch.equal(generator(condition), condition)


def test_it_can_turn_black_into_white_and_goes_no_further() -> None:
    generator, black = network(), torch.full((1, 1, 32, 32), -1.0)
    torch.nn.init.zeros_(generator.change.last[1].weight)
    for bias, expected in ((30.0, 1.0), (-30.0, -1.0), (float(torch.logit(torch.tensor(0.75))), 0.0)):
        torch.nn.init.constant_(generator.change.last[1].bias, bias)
        assert torch.allclose(generator(black), torch.full_like(black, expected), atol=1e-6)


def test_gradients_reach_the_network_where_nothing_is_clipped() -> None:
    generator, condition = network(), torch.zeros(1, 1, 32, 32)
    generator(condition).mean().backward()
    assert all(parameter.grad is not None for parameter in generator.change.last.parameters())


def test_it_exports_to_torchscript() -> None:
    generator, condition = network(), torch.rand(1, 1, 32, 32)
    assert torch.allclose(torch.jit.script(generator)(condition), generator(condition))
