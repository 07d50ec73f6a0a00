from __future__ import annotations

from itertools import islice

import torch
from torch.utils.data import DataLoader

from common.data.sampling import BatchStream
from common.training.batches import BatchGroups, WithLatent, prepare_batch
from common.training.precision import Precision
from tests.common.training.toy import ToyPairs


def test_tensors_come_in_the_layout_and_the_rest_as_it_is() -> None:
    precision = Precision("cpu", amp="bf16", channels_last=True)
    batch = {"image": torch.rand(2, 3, 4, 4), "sample": torch.arange(2), "name": ["a", "b"]}
    prepared = prepare_batch(batch, precision)
    assert prepared["image"].is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(prepared["image"], batch["image"])
    assert prepared["sample"].tolist() == [0, 1] and prepared["name"] == ["a", "b"]


def test_latents_are_normal_fresh_and_go_on_from_the_generators_state() -> None:
    batch, prepare, precision = {"image": torch.rand(2000, 1, 1, 1)}, WithLatent(5), Precision("cpu")
    state = torch.get_rng_state()
    first, second = prepare(batch, precision)["latent"], prepare(batch, precision)["latent"]
    assert first.shape == (2000, 5) and not torch.equal(first, second)
    assert abs(float(first.mean())) < 0.05 and abs(float(first.std()) - 1) < 0.05
    torch.set_rng_state(state)
    assert torch.equal(prepare(batch, precision)["latent"], first)


def test_groups_take_every_batch_once_and_no_random_numbers() -> None:
    stream = BatchStream(8, 2)
    groups = BatchGroups(DataLoader(ToyPairs(), batch_sampler=stream), 3)
    state = torch.get_rng_state()
    taken = [batch["sample"].tolist() for group in islice(groups, 2) for batch in group]
    assert torch.equal(torch.get_rng_state(), state)
    assert taken == [[draw.sample for draw in stream.batch(position)] for position in range(6)]
