"""Several processes on one store, and processes that were killed."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest

from common import files
from common.data import slice_cache as store_module
from common.data.slice_cache import SliceCache
from common.data.slice_geometry import Geometry, Request
from tests.common.data.made_volumes import hounsfield, image, label, labels, save
from tests.common.data.test_slice_cache import contents

FORK = multiprocessing.get_context("fork")
GEOMETRY = Geometry(32)


@pytest.fixture
def requests(tmp_path: Path) -> list[Request]:
    made = [image(save(tmp_path / f"ct{number}.nii.gz", hounsfield(number))) for number in range(5)]
    return [*made, label(save(tmp_path / "heart.nii.gz", labels()))]


def convert(folder: Path, requests: list[Request], workers: int = 2) -> None:
    SliceCache(folder, GEOMETRY, workers).convert(requests)


def started(action: Callable[..., None], *arguments: object) -> BaseProcess:
    process = FORK.Process(target=action, args=arguments)
    process.start()
    return process


def test_two_processes_convert_each_file_once(tmp_path: Path, requests: list[Request]) -> None:
    log = tmp_path / "log"
    real = store_module.read_source

    def noted(request: Request, geometry: Geometry):  # type: ignore[no-untyped-def]
        with log.open("a") as file:
            file.write(f"{request.path.name}\n")
        return real(request, geometry)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store_module, "read_source", noted)
        both = [started(convert, tmp_path / "store", requests) for _ in range(2)]
        for process in both:
            process.join()
    assert [process.exitcode for process in both] == [0, 0]
    assert sorted(log.read_text().split()) == sorted(request.path.name for request in requests)
    convert(tmp_path / "clean", requests)
    assert contents(tmp_path / "store") == contents(tmp_path / "clean")


def test_two_processes_are_right_without_locks_too(
    tmp_path: Path, requests: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(self: object, timeout: float | None = None) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr("filelock.FileLock.acquire", unsupported)
    both = [started(convert, tmp_path / "store", requests) for _ in range(2)]
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    convert(tmp_path / "clean", requests)
    assert contents(tmp_path / "store") == contents(tmp_path / "clean")


def killed_at(action: str, number: int) -> Callable[[Path, list[Request]], None]:
    """A conversion that dies the hard way in the middle of its ``number``-th write."""

    def convert_and_die(folder: Path, requests: list[Request]) -> None:
        calls = iter(range(number - 1))
        module = store_module.np if action == "save" else files
        real = getattr(module, action)

        def dying(target: Path, *arguments: np.ndarray) -> None:
            if next(calls, None) is None:
                target.write_bytes(b"\x93NUMPY half an array") if action == "save" else None
                os.kill(os.getpid(), signal.SIGKILL)
            real(target, *arguments)

        setattr(module, action, dying)
        convert(folder, requests, workers=1)

    return convert_and_die


# Each file is synced twice (itself, then its folder), and each source makes an array and a record.
@pytest.mark.parametrize(
    ("action", "number", "complete"),
    [("save", 3, 2), ("sync", 1, 0), ("sync", 3, 0), ("sync", 4, 1), ("sync", 7, 1), ("sync", 8, 2)],
)
def test_after_a_kill_the_next_run_completes_the_store(
    tmp_path: Path, requests: list[Request], action: str, number: int, complete: int
) -> None:
    process = started(killed_at(action, number), tmp_path / "store", requests)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    left = list((tmp_path / "store").iterdir())
    assert sum(file.suffix == ".json" and not file.name.startswith(".") for file in left) == complete
    times = {file.name: file.stat().st_mtime_ns for file in left if file.suffix == ".json"}
    convert(tmp_path / "store", requests)
    convert(tmp_path / "clean", requests)
    assert contents(tmp_path / "store") == contents(tmp_path / "clean")
    assert not list((tmp_path / "store").glob(".*"))
    after = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "store").glob("*.json")}
    assert all(after[name] == time for name, time in times.items() if not name.startswith("."))
