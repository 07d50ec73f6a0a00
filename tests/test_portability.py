"""macOS, and the oldest release of Python that is promised: checked without such a machine."""

from __future__ import annotations

import ast
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.data.slice_cache import SliceCache, SliceReader, usable_cores
from common.data.slice_geometry import Geometry, Intensity, Request
from common.errors import UserError
from tests.conftest import ROOT

LINUX_ONLY = {
    *(
        "sched_getaffinity",
        "sched_setaffinity",
        "posix_fadvise",
        "posix_fallocate",
        "copy_file_range",
        "splice",
    ),
    *("memfd_create", "eventfd", "pidfd_open", "getrandom", "getxattr", "setxattr", "O_DIRECT", "O_TMPFILE"),
    *(
        "SIGRTMIN",
        "SIGPWR",
        "SIGSTKFLT",
        "pthread_setaffinity_np",
        "epoll",
        "preadv",
        "inotify_init",
        "prctl",
        "malloc_trim",
    ),
    *("process_cpu_count", "batched", "data_filter"),  # of Python 3.13, 3.12 and 3.11.4
}
SOURCES = [path for name in ("common", "bundles", "scripts") for path in sorted((ROOT / name).rglob("*.py"))]


def uses(tree: ast.AST) -> set[str]:
    """Names of attributes, outside of a function that asks ``hasattr`` first, and keywords of calls."""
    guarded = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef) and "hasattr" in ast.unparse(function)
        for node in ast.walk(function)
    }
    names = {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute) and id(n) not in guarded}
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    names |= {
        f"{call.func.attr}({keyword.arg}=)"
        for call in calls
        if isinstance(call.func, ast.Attribute)
        for keyword in call.keywords
    }
    return names


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("import os\nos.sched_getaffinity(0)", {"sched_getaffinity"}),
        ("archive.extractall(folder, filter='data')", {"extractall(filter=)"}),
        ("def f():\n    if hasattr(os, 'eventfd'):\n        os.eventfd()", set()),
    ],
)
def test_uses_of_other_systems_are_found(code: str, found: set[str]) -> None:
    assert uses(ast.parse(code)) & {*LINUX_ONLY, "extractall(filter=)"} == found


def test_no_source_needs_linux_or_a_later_python() -> None:
    newer = {"extractall(filter=)", "extract(filter=)", "unpack_archive(filter=)", "rmtree(onexc=)"}
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        assert not uses(ast.parse(text)) & (LINUX_ONLY | newer), path
        assert "/proc/" not in text and "/dev/shm" not in text, path


def test_slices_are_cached_on_macos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("sched_getaffinity", "preadv"):
        monkeypatch.delattr(os, name, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    Image.fromarray(np.array([[0, 51], [102, 255]], np.uint8)).save(tmp_path / "slice.png")
    cache = SliceCache(tmp_path / "cache", Geometry(size=2))
    (volume,) = cache.convert([Request(tmp_path / "slice.png", "image", Intensity())])
    assert cache.workers == 3
    np.testing.assert_allclose(SliceReader().image(volume, 0), [[0, 0.2], [0.4, 1]], atol=1e-4)
    volume.array.write_bytes(volume.array.read_bytes()[:-1])
    with pytest.raises(UserError, match="cut short"):
        SliceReader().image(volume, 0)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_cores() == 1
