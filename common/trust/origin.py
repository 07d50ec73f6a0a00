"""Which code made a report."""

from __future__ import annotations

import subprocess
from pathlib import Path

from common.provenance import sha256_of

UNKNOWN = "unknown: not in a git checkout"


def commit(root: Path) -> str:
    """The checkout's commit, with a mark where tracked files were changed since."""
    head = _git(root, "rev-parse", "--short=12", "HEAD")
    if head is None:
        return UNKNOWN
    return f"{head}, with changes" if _git(root, "status", "--porcelain", "--untracked-files=no") else head


def fingerprint(file: Path) -> str:
    """The first digits of a file's SHA-256: which model it was."""
    return sha256_of(file)[:12]


def _git(root: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *words], capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
