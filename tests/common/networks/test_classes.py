from __future__ import annotations

import torch

from common.networks.classes import class_embedding


def test_between_two_classes_lies_their_mixture() -> None:
    network = class_embedding(4, 3)
    table = network.table.detach()
    given = network(torch.tensor([2, 0])).detach()
    torch.testing.assert_close(given, table[[2, 0]])
    between = network(torch.tensor([1.25, 2.5])).detach()
    torch.testing.assert_close(between[0], 0.75 * table[1] + 0.25 * table[2])
    torch.testing.assert_close(between[1], 0.5 * table[2] + 0.5 * table[3])
    torch.testing.assert_close(torch.jit.script(network)(torch.tensor([2, 0])).detach(), given)


def test_no_classes_are_no_values() -> None:
    assert class_embedding(0, 3)(torch.zeros(5)).shape == (5, 0)
