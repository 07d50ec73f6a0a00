from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from bundles.dcgan_covid import dense
from bundles.dcgan_covid.dense import DenseImage, PacedLinear, bilinear_weights, separable_factors
from common.errors import UserError


@pytest.fixture
def features() -> torch.Tensor:
    return torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def smooth(features: torch.Tensor, size: int) -> torch.Tensor:
    return functional.interpolate(features, size=size, mode="bilinear")


@pytest.mark.parametrize("rank", [None, 64])
def test_it_begins_as_bilinear_upsampling(
    features: torch.Tensor, rank: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dense, "NOISE", 0.0)
    layer = DenseImage(8, 32, rank)
    torch.testing.assert_close(layer(features).detach(), smooth(features, 32), atol=1e-5, rtol=1e-5)


def test_the_noise_is_a_share_of_a_random_start(features: torch.Tensor) -> None:
    torch.manual_seed(0)
    apart = DenseImage(8, 32)(features).detach() - smooth(features, 32)
    assert float(apart.std()) == pytest.approx(dense.NOISE, rel=0.15)
    random = DenseImage(8, 32, start="random")(features).detach()
    assert float(random.std()) == pytest.approx(1, rel=0.15)
    with pytest.raises(UserError, match="start 'zero' is unknown; choose bilinear or random"):
        DenseImage(8, 32, start="zero")


@pytest.mark.parametrize("rank", [None, 5])
def test_every_pixel_sees_every_value(rank: int | None) -> None:
    layer = DenseImage(4, 16, rank, start="random")
    weights = layer(torch.eye(16).reshape(16, 1, 4, 4)).detach() - layer.outer.bias.reshape(1, 1, 16, 16)
    assert bool((weights != 0).all())
    assert torch.linalg.matrix_rank(weights.flatten(1)) == (rank or 16)


@pytest.mark.parametrize("values", [16, 64])
def test_a_step_of_adam_moves_the_output_by_the_root_of_the_number_of_weights(values: int) -> None:
    layer, given = PacedLinear(values, 3), torch.ones(1, values)
    before = layer(given).detach()
    optimizer = torch.optim.Adam(layer.parameters(), 0.01)
    layer(given).sum().backward()
    optimizer.step()
    # each weight by 0.01, its value divided by PACE and the root, and the bias by 0.01
    expected = values * 0.01 / (dense.PACE * values**0.5) + 0.01
    torch.testing.assert_close(
        before - layer(given).detach(), torch.full((1, 3), expected), rtol=1e-3, atol=1e-4
    )


def test_it_begins_as_a_given_map_plus_noise() -> None:
    layer, given = PacedLinear(400, 500), torch.randn(20, 400)
    assert float(layer(given).detach().std()) == pytest.approx(1, rel=0.05)
    matrix = torch.randn(500, 400)
    layer.begin_as(matrix)
    assert float((layer(given).detach() - given @ matrix.T).std()) == pytest.approx(dense.NOISE, rel=0.05)


def test_factors_come_closest() -> None:
    rows = bilinear_weights(4, 12)
    whole = torch.kron(rows, rows)
    values = torch.linalg.svdvals(whole)
    for rank in (3, 9, 16):
        outer, inner = separable_factors(rows, rank)
        assert outer.shape == (144, rank) and inner.shape == (rank, 16)
        apart = torch.linalg.matrix_norm(outer @ inner - whole)
        assert float(apart) == pytest.approx(float(values[rank:].square().sum().sqrt()), abs=1e-5)
