from __future__ import annotations

import torch
from torch import nn

from common.data.replay import noise_coordinates
from common.inference.prepare_batch import (
    ConditionToImage,
    LatentToImage,
    PrecisionInferer,
    condition_as_prediction,
    mask_to_image,
    prediction_target_condition,
)
from common.inference.sampling import latents
from common.networks.blocks import make_drawn_noise
from common.training.precision import Precision


def test_masks_in_images_out() -> None:
    batch = {"label": torch.ones(2, 1, 4, 4), "image": torch.zeros(2, 1, 4, 4)}
    label, image = mask_to_image(batch, "cpu")
    assert torch.equal(label, batch["label"]) and image is not None and torch.equal(image, batch["image"])
    assert mask_to_image({"label": batch["label"]})[1] is None


def test_noise_belongs_to_the_samples() -> None:
    batch = {"image": torch.zeros(2, 1, 4, 4), "sample": torch.tensor([5, 1]), "class": torch.tensor([2, 0])}
    noise, image = LatentToImage(6, seed=3)(batch, "cpu")
    assert torch.equal(noise, latents(3, [5, 1], 6)) and torch.equal(image, batch["image"])
    noise, image, given, named = LatentToImage(6, seed=3, classes=True)(batch, "cpu")
    assert torch.equal(noise, latents(3, [5, 1], 6)) and torch.equal(given[0], batch["class"]) and named == {}
    assert LatentToImage(6)({"sample": torch.tensor([0])})[1] is None


class Noisy(torch.nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.noise = make_drawn_noise(channels)


def batch_of(*names: str, size: int = 6) -> dict[str, object]:
    places = [noise_coordinates(name, 1.5) for name in names]
    entries = {key: torch.tensor([place[key] for place in places]) for key in places[0]}
    return {
        "label": torch.zeros(len(names), 1, size, size),
        "image": torch.ones(len(names), 1, size, size),
    } | entries


def test_noise_goes_by_names_not_by_batches() -> None:
    prepare = ConditionToImage(Noisy(3), seed=7)
    label, image, (noise,), named = prepare(batch_of("a", "b", "c"), "cpu")
    assert noise.shape == (3, 3, 6, 6) and named == {} and image.mean() == 1 and label.sum() == 0
    other = prepare(batch_of("c", "a"))[2][0]
    assert torch.equal(other[0], noise[2]) and torch.equal(other[1], noise[0])
    assert not torch.equal(ConditionToImage(Noisy(3), seed=8)(batch_of("a"))[2][0][0], noise[0])


def test_without_noise_nothing_is_added() -> None:
    assert len(ConditionToImage(Noisy(0))(batch_of("a"))) == 2
    plain = {name: value for name, value in batch_of("a").items() if "noise" not in name}
    assert len(ConditionToImage(Noisy(3))(plain)) == 2


def test_batched_and_decollated_outputs_give_the_same() -> None:
    batch = {name: torch.rand(3, 1, 4, 4) for name in ("pred", "label", "image")}
    items = [{name: value[row] for name, value in batch.items()} for row in range(3)]
    whole, parts = prediction_target_condition(batch), prediction_target_condition(items)
    for name, first, second in zip(("pred", "label", "image"), whole, parts, strict=True):
        assert torch.equal(first, batch[name]) and torch.equal(first, second)
    condition, target, _ = condition_as_prediction(items)
    assert torch.equal(condition, batch["image"]) and torch.equal(target, batch["label"])


def test_the_mask_is_the_input_and_the_image_the_target() -> None:
    batch = {"image": torch.rand(2, 1, 4, 4), "label": torch.ones(2, 1, 4, 4), "sample": torch.arange(2)}
    source, target = mask_to_image(batch, "cpu", non_blocking=True)
    assert target is not None
    assert torch.equal(source, batch["label"]) and torch.equal(target, batch["image"])
    assert mask_to_image({"label": batch["label"]}, torch.device("cpu"))[1] is None


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
