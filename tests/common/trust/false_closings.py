"""How often the gate closes for nothing, and from which share of copies on it closes: nominal and measured.

    python -m tests.common.trust.false_closings 1000

prints a table. Patients are points in 12 dimensions, slices lie around them (`tests.common.trust.made`).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import torch
from scipy.stats import betabinom

from common.trust.gate import SIGNIFICANT, certain_copies, counts_of
from common.trust.near_copies import Copies
from tests.common.trust.made import made_copies

CASES = (
    {"trained": 25, "heldout": 20, "unseen": 5, "slices": 20},
    {"trained": 25, "heldout": 20, "unseen": 20, "slices": 5},
    {"trained": 25, "heldout": 20, "unseen": 100, "slices": 1},
    {"trained": 100, "heldout": 40, "unseen": 10, "slices": 10},
    {"trained": 100, "heldout": 40, "unseen": 100, "slices": 1},
)


def closes(copies: Copies) -> bool:
    """Whether the test finds copies, whatever it could notice."""
    return counts_of(copies).p_value() < SIGNIFICANT


def closes_by_images(copies: Copies) -> bool:
    """A test that takes images for independent: the same scores, each image beyond what 5 % of held-out ones
    exceed counts."""
    held = copies.reference.scores[~copies.trained[copies.owners]].sort(descending=True).values
    rank = max(1, int(0.05 * (len(held) + 1)))
    beyond = int((copies.synthetic.scores > held[rank - 1]).sum())
    images = len(copies.synthetic)
    return float(betabinom.sf(beyond - 1, images, rank, len(held) + 1 - rank)) < SIGNIFICANT


def rows(repeats: int) -> Iterator[str]:
    """The table's lines."""
    heads = ["training / held-out patients", "unseen patients x slices", "nominal"]
    heads += ["by patients", "one image beyond doubt", "images as units"]
    yield f"| {' | '.join(heads)} |"
    yield "| --- " * len(heads) + "|"
    for case in CASES:
        counted = torch.zeros(3)
        for seed in range(repeats):
            copies = made_copies(seed, **case)
            found = closes(copies), bool(certain_copies(copies).any()), closes_by_images(copies)
            counted += torch.tensor([float(each) for each in found])
        shares = " | ".join(f"{100 * share:.1f} %" for share in (counted / repeats).tolist())
        yield (
            f"| {case['trained']} / {case['heldout']} | {case['unseen']} x {case['slices']} | "
            f"{100 * SIGNIFICANT:g} % | {shares} |"
        )


if __name__ == "__main__":
    for row in rows(int(sys.argv[1]) if len(sys.argv) > 1 else 200):
        print(row, flush=True)
