from __future__ import annotations

from typing import Any

import pytest
import torch

from common.tools.export import sample_inputs


def sample_input(*settings: Any, **more: Any) -> torch.Tensor:
    [values] = sample_inputs(*settings, **more)
    return values


def metadata(**image: Any) -> dict[str, Any]:
    return {"network_data_format": {"inputs": {"image": image}}}


MASKS = metadata(format="segmentation", num_channels=1, spatial_shape=["128*n", "128*n"], value_range=[0, 7])
NOISE = metadata(format="latent", num_channels=100, spatial_shape=[], value_range=[])
SCANS = metadata(format="hounsfield", num_channels=2, spatial_shape=[64, 64], value_range=[-1, 1])


def test_sizes_are_the_models_and_else_the_declared_ones() -> None:
    assert sample_input(NOISE, {}, 3).shape == (3, 100)
    assert sample_input(NOISE, {"latent": 8}, 2).shape == (2, 8)
    assert sample_input(MASKS, {}, 2).shape == (2, 1, 128, 128)
    assert sample_input(MASKS, {"image_size": 32}, 2).shape == (2, 1, 32, 32)
    assert sample_input(SCANS, {}, 1).shape == (1, 2, 64, 64)


def test_values_are_of_the_declared_kind() -> None:
    assert set(sample_input(MASKS, {}, 2).unique().tolist()) == set(range(8))
    few = {"network": {"arguments": {"classes": 2}}}
    assert set(sample_input(MASKS, few, 2).unique().tolist()) == {0, 1, 2}
    noise = sample_input(NOISE, {}, 200)
    assert noise.std().item() == pytest.approx(1, abs=0.02)
    scans = sample_input(SCANS, {}, 2)
    assert -1 <= scans.min() < -0.99 and 0.99 < scans.max() <= 1


def test_a_seed_gives_the_same_values() -> None:
    first, second, other = (sample_input(NOISE, {}, 2, seed=seed) for seed in (4, 4, 5))
    assert torch.equal(first, second) and not torch.equal(first, other)


def test_a_model_of_classes_takes_all_of_them_in_turn() -> None:
    noise, classes = sample_inputs(NOISE, {"network": {"arguments": {"classes": 3}}}, 5)
    assert noise.shape == (5, 100) and classes.tolist() == [0, 1, 2, 0, 1]
