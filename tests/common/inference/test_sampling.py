from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from common.errors import UserError
from common.inference.sampling import (
    BLOCK,
    MixtureSamples,
    SampleNumbers,
    chosen_classes,
    class_names_of,
    class_noise,
    draw_images,
    example_noise,
    latents,
    noise_beside,
)


class Images(list[int]):
    """A dataset whose image k has level k and class k modulo 2, of three classes."""

    class_names = ("none", "mild", "severe")

    @property
    def images(self) -> np.ndarray:
        return np.array(self, np.float32)[:, None, None, None]

    @property
    def classes(self) -> np.ndarray:
        return np.array(self, np.int64) % 2


def test_a_samples_noise_depends_on_seed_and_number_alone() -> None:
    whole = latents(3, range(5), 7)
    assert torch.equal(latents(3, [4, 1], 7), whole[[4, 1]])
    assert not torch.equal(latents(4, [1], 7), whole[[1]]) and latents(3, [], 7).shape == (0, 7)
    many = latents(0, range(400), 100)
    assert float(many.mean()) == pytest.approx(0, abs=0.02) and float(many.std()) == pytest.approx(
        1, abs=0.02
    )


def test_noise_and_as_many_real_images_spread_evenly() -> None:
    found = noise_beside(Images(range(9)), 4, count=3)  # type: ignore[arg-type]
    assert found["image"].flatten().tolist() == [0, 4, 8] and found["class"].tolist() == [0, 0, 0]
    assert torch.equal(found["latent"], latents(0, range(3), 4))
    few = noise_beside(Images(range(2)), 4, count=3)  # type: ignore[arg-type]
    assert len(few["latent"]) == len(few["image"]) == 2


def test_examples() -> None:
    batch = example_noise(Images(range(10)), 4, rows=2)  # type: ignore[arg-type]
    assert torch.equal(batch["latent"], latents(0, range(16), 4))
    assert batch["image"].flatten().tolist() == [0, 1, 3, 4, 5, 6, 8, 9]
    assert len(example_noise(Images(range(3)), 4)["image"]) == 3  # type: ignore[arg-type]


def test_a_row_for_each_class_that_is_there_with_the_same_noise() -> None:
    batch = class_noise(Images(range(5)), 4)  # type: ignore[arg-type]
    assert batch["class"].tolist() == [0] * 8 + [1] * 8
    assert torch.equal(batch["latent"][:8], batch["latent"][8:])
    assert torch.equal(batch["latent"][:8], latents(0, range(8), 4))
    assert batch["image"].flatten().tolist() == [0, 2, 4, 0, 2, 4, 0, 2] + [1, 3] * 4


NAMES = ["none", "mild", "severe"]


def test_blocks_are_whole_and_begin_at_their_multiples() -> None:
    numbers = SampleNumbers(10, first_sample=BLOCK - 2)
    assert numbers.requested == range(BLOCK - 2, BLOCK + 8)
    assert [numbers[place]["sample"] for place in range(len(numbers))] == list(range(2 * BLOCK))
    later = SampleNumbers(1, first_sample=3 * BLOCK)
    assert len(later) == BLOCK and later[0] == {"sample": 3 * BLOCK}


def test_classes_take_turns_by_the_number() -> None:
    numbers = SampleNumbers(4, 7, "severe,none", NAMES)
    assert [numbers.class_name(number) for number in numbers.requested] == ["none", "severe"] * 2
    assert numbers[7] == {"sample": 7, "class": 0}
    everything = SampleNumbers(6, 0, "all", NAMES)
    assert [everything.class_name(number) for number in range(6)] == NAMES * 2
    assert SampleNumbers(6).class_name(2) == ""


def test_as_the_command_line_gives_them() -> None:
    assert SampleNumbers("3", "4").requested == range(4, 7)  # type: ignore[arg-type]
    assert chosen_classes(("mild", " none"), NAMES) == [1, 0]
    assert chosen_classes(1, ["0", "1"]) == [1]  # type: ignore[arg-type]


def test_names_are_those_of_the_classes_that_the_network_knows() -> None:
    assert class_names_of(3, {"classes": NAMES}) == NAMES
    assert class_names_of(0, {"classes": ["covid"]}) == []
    assert class_names_of(2, {}) == ["0", "1"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"num_samples": 0}, "num_samples 0: give a whole number of at least 1"),
        ({"num_samples": 2, "first_sample": -1}, "first_sample -1: give a whole number of at least 0"),
        ({"num_samples": 2, "classes": "mild"}, "class mild: this model was trained without classes"),
        (
            {"num_samples": 2, "classes": "mild,bad", "class_names": NAMES},
            "no class bad; the model has none, mild",
        ),
        ({"num_samples": 2, "classes": [], "class_names": NAMES}, "no class chosen"),
    ],
)
def test_what_is_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        SampleNumbers(**settings)  # type: ignore[arg-type]


def test_samples_have_their_numbers_and_no_class() -> None:
    samples = MixtureSamples(5)
    assert [batch["sample"].tolist() for batch in DataLoader(samples, 2)] == [[0, 1], [2, 3], [4]]
    assert samples[0] == {"sample": 0} and samples.drawn_classes() == []
    with pytest.raises(IndexError):
        samples[5]


def test_classes_are_mixed_as_in_the_set_and_a_samples_class_depends_on_its_number_alone() -> None:
    given = [0] * 60 + [2] * 20  # in the order of folders
    whole, few = MixtureSamples(160, given), MixtureSamples(40, given)
    assert [whole.drawn_classes().count(index) for index in (0, 1, 2)] == [120, 0, 40]
    assert 4 <= few.drawn_classes().count(2) <= 16
    assert [few[number] for number in range(40)] == [whole[number] for number in range(40)]
    assert whole[83]["class"] == whole[3]["class"]


def test_a_count_that_is_none_is_named() -> None:
    with pytest.raises(UserError, match="num_samples 0: give a whole number of at least 1"):
        MixtureSamples(0)


class Counting(nn.Module):
    """Gives back its first value as an image; remembers the sizes of its batches."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.sizes = nn.Parameter(torch.ones(())), []
        self.dropout = nn.Dropout(0.9)

    def forward(self, latent: Tensor, condition: Tensor | None = None) -> Tensor:
        self.sizes.append(len(latent))
        value = latent[:, :1] + (0 if condition is None else condition[:, None])
        return self.dropout(self.weight * value)[:, :, None, None]


def test_any_number_goes_through_in_blocks_without_gradients() -> None:
    network, latents = Counting().train(), torch.randn(BLOCK + 5, 3)
    images = draw_images(network, latents)
    assert network.sizes == [BLOCK, 5] and network.training and not images.requires_grad
    torch.testing.assert_close(images[:, 0, 0, 0], latents[:, 0])


def test_each_latent_with_its_own_class() -> None:
    latents, classes = torch.randn(40, 2), torch.arange(40.0)
    images = draw_images(Counting(), latents, classes)
    torch.testing.assert_close(images[:, 0, 0, 0], latents[:, 0] + classes)
