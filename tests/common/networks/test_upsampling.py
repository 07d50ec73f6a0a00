from __future__ import annotations

import pytest
import torch

from common.errors import UserError
from common.networks.initialisation import initialise
from common.networks.upsampling import upsampling


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("kind", "taps"), [("transposed", 16), ("resize", 9)])
def test_both_double_the_size(kind: str, taps: int, bias: bool) -> None:
    layer = upsampling(kind, 3, 5, bias)
    assert layer(torch.rand(2, 3, 4, 6)).shape == (2, 5, 8, 12)
    assert sum(parameter.numel() for parameter in layer.parameters()) == taps * 15 + 5 * bias


def test_resizing_has_no_grid_where_a_transposed_convolution_has_one() -> None:
    """A flat input stays flat away from the border (Odena et al. 2016)."""

    def roughness(kind: str) -> float:
        torch.manual_seed(0)
        layer = initialise(upsampling(kind, 4, 1, bias=False), 0.5)
        return float(layer(torch.ones(1, 4, 16, 16))[..., 4:-4, 4:-4].detach().std())

    assert roughness("resize") < 1e-6 < 0.1 < roughness("transposed")


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(UserError, match="'bilinear' is unknown; choose transposed or resize"):
        upsampling("bilinear", 1, 1, True)
