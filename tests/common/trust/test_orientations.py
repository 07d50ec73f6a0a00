from __future__ import annotations

import pytest
import torch

from common.metrics.neighbours import nearest
from common.metrics.pixels import pattern_vectors
from common.trust.orientations import (
    WAYS,
    NearestOfAll,
    all_moved,
    shifted,
    shifts_up_to,
    turned,
)
from tests.common.trust.made_textures import pictures


def test_eight_ways_all_different() -> None:
    images = pictures(2, 0)
    ways = [turned(images, way) for way in WAYS]
    assert len({part.numpy().tobytes() for part in ways}) == 8
    assert torch.equal(turned(images, "flip_lr"), images.flip(-1))


def test_the_nearest_over_all_ways_as_by_brute_force() -> None:
    queries, references = pictures(5, 0), pictures(7, 1)
    references[4] = turned(queries[2:3], "rot90")[0]
    gathered = NearestOfAll()
    vectors = pattern_vectors(references)
    for way, part in all_moved(queries, pattern_vectors):
        gathered.add(part, vectors, way)
    found = gathered.found
    moved = [part for _, part in all_moved(queries, pattern_vectors)]
    every = torch.stack([nearest(part, vectors)[0][:, 0] for part in moved])
    assert torch.equal(found.distances, every.amin(0))
    assert found.distances[2] == pytest.approx(0, abs=1e-6) and found.indices[2] == 4
    assert WAYS[int(found.ways[2])] == "rot90"
    with pytest.raises(ValueError, match="nothing"):
        NearestOfAll().found  # noqa: B018


def test_shifts_shortest_first_each_once_and_what_they_do() -> None:
    shifts = shifts_up_to(2)
    assert len(set(shifts)) == len(shifts) == 25 and shifts[0] == (0, 0)
    image = torch.arange(12.0).view(1, 1, 3, 4)
    expected = torch.tensor([[1.0, 2, 3, 3], [1, 2, 3, 3], [5, 6, 7, 7]])  # down by 1, to the left by 1
    assert torch.equal(shifted(image, (1, -1))[0, 0], expected)


def test_a_copy_that_was_turned_and_shifted_is_found() -> None:
    queries, references = pictures(5, 0), pictures(7, 1)
    references[4] = turned(shifted(queries[2:3], (-2, 1)), "rot90")[0]
    gathered, still = NearestOfAll(), NearestOfAll()
    vectors = pattern_vectors(references)
    for finder, shifts in ((gathered, shifts_up_to(2)), (still, shifts_up_to(0))):
        for way, part in all_moved(queries, pattern_vectors, shifts):
            finder.add(part, vectors, way)
    assert gathered.found.indices[2] == 4 and WAYS[int(gathered.found.ways[2])] == "rot90"
    assert gathered.found.distances[2] < 0.5 * still.found.distances[2]
    assert bool((gathered.found.distances <= still.found.distances).all())
