"""The pool fills up, then shows half of the images old, always the same way."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from common.errors import UserError
from common.training.image_pool import ImagePool


def numbered(first: int, count: int = 1) -> Tensor:
    """Images (count, 1, 1, 1) that are their own number."""
    return torch.arange(first, first + count, dtype=torch.float32).reshape(-1, 1, 1, 1)


def shown(pool: ImagePool, count: int, first: int = 0) -> list[int]:
    return [int(pool.query(numbered(number))) for number in range(first, first + count)]


def test_new_images_are_shown_until_the_pool_is_full() -> None:
    pool = ImagePool(4)
    assert torch.equal(pool.query(numbered(0, 4)), numbered(0, 4))
    assert len(pool.images) == 4


def test_half_of_the_images_are_old_then_and_an_old_one_is_shown_once() -> None:
    pool = ImagePool(10)
    images = shown(pool, 2010)
    old = [image for number, image in enumerate(images) if image != number]
    assert 900 < len(old) < 1100
    late = images[10:]  # what the full pool gives away has been in it since before
    assert all(image <= number for number, image in enumerate(images))
    assert max(late.count(image) for image in late if image >= 10) == 1
    assert sorted(late[:2000] + [int(image) for image in pool.images]) == list(range(2010))


def test_without_a_pool_images_pass() -> None:
    assert shown(ImagePool(0), 5) == [0, 1, 2, 3, 4]


def test_no_gradients_reach_the_generator() -> None:
    assert not ImagePool(2).query(numbered(0).requires_grad_()).requires_grad


def test_two_pools_draw_for_themselves_and_a_seed_repeats() -> None:
    first, again = (shown(ImagePool(3, 1, "X"), 50) for _ in range(2))
    assert first == again != shown(ImagePool(3, 1, "Y"), 50)
    assert first != shown(ImagePool(3, 2, "X"), 50)


def test_it_goes_on_from_its_state() -> None:
    straight, stopped, resumed = ImagePool(3), ImagePool(3), ImagePool(3)
    whole = shown(straight, 40)
    assert shown(stopped, 17) == whole[:17]
    resumed.load_state_dict(stopped.state_dict())
    assert shown(resumed, 23, 17) == whole[17:]


def test_a_negative_size_is_refused() -> None:
    with pytest.raises(UserError, match="pool_size -1"):
        ImagePool(-1)
