"""Distances by name."""

from __future__ import annotations

import pytest
import torch

from common.errors import UserError
from common.losses.reconstruction import reconstruction_loss


@pytest.mark.parametrize(("kind", "value"), [("l1", 2.0), ("l2", 5.0), ("smooth_l1", 1.5)])
def test_known_values(kind: str, value: float) -> None:
    made, target = torch.tensor([3.0, -1.0]), torch.zeros(2)
    assert reconstruction_loss(kind)(made, target).item() == pytest.approx(value)


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(UserError, match="l1, l2, smooth_l1"):
        reconstruction_loss("L3")
