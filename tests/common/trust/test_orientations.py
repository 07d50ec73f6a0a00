from __future__ import annotations

import pytest
import torch

from common.metrics.neighbours import nearest
from common.metrics.pixels import pattern_vectors
from common.trust.orientations import WAYS, NearestOfAll, all_turned, turned, turned_back
from tests.common.trust.made_textures import pictures


def test_eight_ways_all_different_and_undone() -> None:
    images = pictures(2, 0)
    ways = [turned(images, way) for way in WAYS]
    assert len({part.numpy().tobytes() for part in ways}) == 8
    assert all(torch.equal(turned_back(part, way), images) for part, way in zip(ways, WAYS, strict=True))
    assert torch.equal(turned(images, "flip_lr"), images.flip(-1))


def test_the_nearest_over_all_ways_as_by_brute_force() -> None:
    queries, references = pictures(5, 0), pictures(7, 1)
    references[4] = turned(queries[2:3], "rot90")[0]
    gathered = NearestOfAll()
    vectors = pattern_vectors(references)
    for part in all_turned(queries, pattern_vectors):
        gathered.add(part, vectors)
    found = gathered.found
    every = torch.stack([nearest(part, vectors)[0][:, 0] for part in all_turned(queries, pattern_vectors)])
    assert torch.equal(found.distances, every.amin(0))
    assert found.distances[2] == pytest.approx(0, abs=1e-6) and found.indices[2] == 4
    assert WAYS[int(found.ways[2])] == "rot90"
    with pytest.raises(ValueError, match="nothing"):
        NearestOfAll().found  # noqa: B018
