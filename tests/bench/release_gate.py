"""The release gate's search among many images against plain torch: distances, grid of poses, local search."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from common.trust.membership import measure_distances
from common.trust.registration import ORIENTATION_NAMES, refine, search_grid, view_window
from tests.bench.harness import Result, alternate, benchmark, seconds

TRAINING, HELDOUT, SYNTHETIC = 2000, 200, 2000
DIMENSION = 512
GRID_PIXELS, SIDE, PAIRS = 200, 16, 3000
"""Pixels under the window in the grid; side and number of the pairs of images that are registered."""
ROUNDS = 2
GOAL, REPEATS = 1.2, 5


@benchmark("release_gate")
def release_gate_seconds() -> Result:
    """What takes the time for 10 000 images, on fewer: both sides give the same answers."""
    torch.set_num_threads(1)
    work = make_work()
    for fast, slow in zip(ours(*work), plain(*work), strict=True):
        torch.testing.assert_close(fast, slow, rtol=0, atol=1e-4, check_dtype=False)

    def run_ours() -> None:
        ours(*work)

    def run_plain() -> None:
        plain(*work)

    quick, long = alternate(lambda: seconds(run_ours), lambda: seconds(run_plain), REPEATS)
    return Result("release_gate", long / quick, GOAL, quick, long, "s", REPEATS)


def make_work() -> tuple[list[Tensor], list[Tensor], tuple[Tensor, Tensor, Tensor]]:
    """Features of the sets (real ones in eight orientations), unit patterns, pairs of images with poses."""
    random = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random)

    count = len(ORIENTATION_NAMES)
    sizes = (SYNTHETIC, HELDOUT, *[TRAINING] * count, *[HELDOUT] * count)
    patterns = [F.normalize(draw(size, GRID_PIXELS)) for size in (SYNTHETIC, *[TRAINING] * count)]
    images = F.avg_pool2d(draw(2 * PAIRS, 1, SIDE + 4, SIDE + 4), 5, 1)
    poses = draw(PAIRS, 4) * torch.tensor([0.05, 4.0, 0.02, 0.02])
    return [draw(size, DIMENSION) for size in sizes], patterns, (images[:PAIRS], images[PAIRS:], poses)


def ours(features: Sequence[Tensor], patterns: Sequence[Tensor], pairs: Sequence[Tensor]) -> list[Tensor]:
    """By the functions that the report uses."""
    count = len(ORIENTATION_NAMES)
    training, others = features[2 : 2 + count], features[2 + count :]
    found = measure_distances(features[0], features[1], zip(range(count), training, others, strict=True))
    similar, _ = search_grid(patterns[0], [torch.stack(list(patterns[1:]))], count)
    window = view_window("whole", SIDE).flatten()
    parts = zip(*(part.split(256) for part in pairs), strict=True)
    registered = torch.cat([refine(a, b, pose, window, range(4), ROUNDS) for a, b, pose in parts])
    sides = (found.synthetic, found.heldout, found.members, found.others)
    return [*(side.distances for side in sides), similar, registered]


def plain(features: Sequence[Tensor], patterns: Sequence[Tensor], pairs: Sequence[Tensor]) -> list[Tensor]:
    """By whole matrices of every orientation, and by torch's own grids of poses."""
    count = len(ORIENTATION_NAMES)
    training, others = features[2 : 2 + count], features[2 + count :]
    sides = (
        (features[:1], training),
        (features[1:2], training),
        (training, features[:1]),
        (others, features[:1]),
    )
    distances = [
        torch.stack([torch.cdist(a, b).amin(1) for a in first for b in second]).amin(0)
        for first, second in sides
    ]
    similar = torch.stack([(patterns[0] @ each.T).abs() for each in patterns[1:]]).max(0).values
    return [*distances, similar, plain_refine(*pairs)]


def plain_refine(targets: Tensor, references: Tensor, poses: Tensor) -> Tensor:
    """The local search of `refine`, all pairs at once."""
    steps = torch.tensor([0.06, 4.0, 0.03, 0.03]).repeat(len(poses), 1)
    best = plain_similarity(targets, references, poses)
    for _ in range(ROUNDS):
        before = best
        for number in range(4):
            for sign in (-1, 1):
                tried = poses.clone()
                tried[:, number] += sign * steps[:, number]
                similar = plain_similarity(targets, references, tried)
                poses = torch.where((similar > best)[:, None], tried, poses)
                best = torch.maximum(similar, best)
        steps = torch.where((best > before)[:, None], steps, steps / 2)
    return best


def plain_similarity(targets: Tensor, references: Tensor, poses: Tensor) -> Tensor:
    """The weighted correlation of the covered part of the window by its definition."""
    scale, angle = poses[:, 0].exp(), poses[:, 1].deg2rad()
    rows = (
        torch.stack([angle.cos() / scale, -angle.sin() / scale, 2 * poses[:, 3]], 1),
        torch.stack([angle.sin() / scale, angle.cos() / scale, 2 * poses[:, 2]], 1),
    )
    grid = F.affine_grid(torch.stack(rows, 1), list(references.shape), align_corners=False)
    posed = F.grid_sample(references, grid, padding_mode="border", align_corners=False)[:, 0]
    window = view_window("whole", SIDE)
    weights = window * (grid.abs().amax(-1) <= 1)
    covered = weights.sum((1, 2)) / window.sum()
    weights = weights / weights.sum((1, 2), keepdim=True)
    parts = [part - (part * weights).sum((1, 2), keepdim=True) for part in (targets[:, 0], posed)]
    lengths = [(part.square() * weights).sum((1, 2)).sqrt() for part in parts]
    similar = (parts[0] * parts[1] * weights).sum((1, 2)).abs() / (lengths[0] * lengths[1])
    return torch.where(covered >= 0.5, similar, 0.0)
