"""Freed memory stays with the process: the second large tensor costs no new pages."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import resource, sys
import numpy as np
from common.inference.memory import keep_freed_memory

kept = sys.argv[1] == "kept" and keep_freed_memory()

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

for _ in range(2):
    before = faults()
    np.ones(64 * 2**20, np.uint8)
print(int(kept), faults() - before)
"""


def second_tensor(how: str) -> tuple[int, int]:
    """Whether memory is kept, and the new pages of a second array of 64 MiB."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True)
    kept, pages = done.stdout.split()
    return int(kept), int(pages)


def test_a_second_tensor_needs_new_pages_only_where_freed_ones_are_given_back() -> None:
    assert second_tensor("not")[1] > 10  # huge pages have 2 MiB
    kept, pages = second_tensor("kept")
    assert pages <= 10 if kept else pages > 10
