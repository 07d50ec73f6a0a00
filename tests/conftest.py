"""Fixtures for all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from monai.utils import set_determinism

ROOT = Path(__file__).resolve().parent.parent
SHARED_DATA = ROOT.parent / "shared" / "data"

# Programs that tests start see this checkout as an install in place shows it, even where the environment has
# another checkout's; `test_installation` looks at the install itself.
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real data beside the repository; the test is skipped where there is none."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no real data at {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture(autouse=True)
def _repeatable() -> None:
    """Every test starts from the same seeds and one thread: its numbers do not depend on its neighbours."""
    torch.set_num_threads(1)
    set_determinism(0)
