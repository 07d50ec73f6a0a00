"""Runs of a bundle as a user starts them, each in a process of its own.

`command` is the plain ``python -m monai.bundle``: six seconds, most of them imports. `forked` runs the same
module, or a script, with the same arguments in a process forked from one that has the libraries loaded
(`tests.bundles.preload`): half a second. What a run sees is the same, the project's own code included, which
no process has loaded before.

Both see the project as installed, or with ``installed=False`` as someone who has downloaded a bundle alone.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import runpy
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from common.paths import repository_root

ROOT = repository_root()


@dataclass(frozen=True)
class Run:
    """A finished run: exit code and what it printed."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line that a refused run ends with, after a check that it is one and no traceback."""
        assert self.code == 1, f"exit {self.code}\n{self.out}\n{self.err}"
        assert "Traceback" not in self.err + self.out, self.err + self.out
        lines = [line for line in self.err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1 and self.err.rstrip().endswith(lines[0]), self.err
        return lines[0].removeprefix("error: ")


def python(installed: bool = True) -> tuple[list[str], dict[str, str]]:
    """How Python is started, and its environment.

    Args:
        installed: False for an environment that has the libraries without this project: ``-S`` leaves out
            what site-packages adds to the path, an install in place among it.
    """
    packages = os.pathsep.join({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    line = [sys.executable] if installed else [sys.executable, "-S"]
    return line, dict(os.environ) if installed else {**os.environ, "PYTHONPATH": packages}


def command(
    parts: Sequence[str],
    cwd: Path = ROOT,
    launcher: Sequence[str] = (),
    installed: bool = True,
    **environment: str,
) -> subprocess.Popen[str]:
    """Starts ``python [LAUNCHER] -m monai.bundle PARTS``."""
    interpreter, variables = python(installed)
    variables |= {"OMP_NUM_THREADS": "1", **environment}
    line = [*interpreter, *launcher, "-m", "monai.bundle", *parts]
    pipe = subprocess.PIPE
    return subprocess.Popen(line, cwd=cwd, env=variables, stdout=pipe, stderr=pipe, text=True)


def finished(process: subprocess.Popen[str], timeout: float = 300) -> Run:
    """Waits for a started command."""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.terminate()  # a launcher ends its workers too
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=20)
        process.kill()
        raise
    return Run(process.returncode, out, err)


class Forked:
    """A run in a forked process, going on or finished."""

    def __init__(
        self,
        parts: Sequence[str],
        log: Path,
        cwd: Path = ROOT,
        file_limit: int = 0,
        installed: bool = True,
        script: str = "",
        **environment: str,
    ) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["tests.bundles.preload"])
        self.out, self.err = log.with_suffix(".out"), log.with_suffix(".err")
        log.parent.mkdir(parents=True, exist_ok=True)
        method = multiprocessing.get_start_method()
        run = (list(parts), str(self.out), str(self.err), str(cwd))
        everything = (*run, file_limit, installed, environment, method, script)
        self.process: ForkServerProcess = context.Process(target=_in_child, args=everything)
        self.process.start()

    def kill(self) -> None:
        """SIGKILL: the process has no chance to tidy up."""
        self.process.kill()
        self.process.join()

    def result(self, timeout: float = 300) -> Run:
        """Waits for the end."""
        self.process.join(timeout)
        if self.process.exitcode is None:
            self.kill()
            raise TimeoutError(self.err.read_text())
        return Run(self.process.exitcode, self.out.read_text(), self.err.read_text())


def forked(
    parts: Sequence[str],
    log: Path,
    cwd: Path = ROOT,
    file_limit: int = 0,
    installed: bool = True,
    script: str = "",
    **environment: str,
) -> Run:
    """Runs ``python -m monai.bundle PARTS`` forked; its output goes to ``LOG.out`` and ``LOG.err``.

    Args:
        file_limit: most bytes the run may write into one file; 0 for no limit.
        script: name of a script; ``python scripts/NAME.py PARTS`` is run instead.
    """
    return Forked(parts, log, cwd, file_limit, installed, script, **environment).result()


def fingerprints(folder: Path) -> dict[str, str]:
    """What each file of a folder holds."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _in_child(
    parts: list[str],
    out: str,
    err: str,
    cwd: str,
    file_limit: int,
    installed: bool,
    environment: dict[str, str],
    start_method: str,
    script: str,
) -> None:
    """What Python does for ``-m monai.bundle`` or a script, in a fresh process."""
    import torch

    for number, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.environ.update({**python(installed)[1], **environment})
    os.chdir(cwd)
    file = ROOT / "scripts" / f"{script}.py"
    others = [entry for entry in sys.path if entry not in ("", cwd, str(ROOT))]
    sys.path[:] = [str(file.parent) if script else cwd, *[str(ROOT)] * installed, *others]
    for name in [name for name in sys.modules if name.partition(".")[0] in ("common", "bundles")]:
        del sys.modules[name]  # what this module has imported: the run is to find its own
    sys.argv = [str(file) if script else "monai.bundle", *parts]
    # Else the workers of its loaders would come from a fork server too, which those of a plain run do not.
    multiprocessing.set_start_method(start_method, force=True)
    torch.set_num_threads(1)
    if file_limit:
        _limit_files(file_limit)
    try:
        if script:
            runpy.run_path(str(file), run_name="__main__")
        else:
            runpy.run_module("monai.bundle", run_name="__main__", alter_sys=True)
    except Exception:
        sys.excepthook(*sys.exc_info())
        sys.exit(1)


def _limit_files(size: int) -> None:
    import resource
    import signal

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
