"""Where things lie, whatever the working directory."""

from __future__ import annotations

from pathlib import Path

from common.errors import UserError


def repository_root() -> Path:
    """The folder that holds ``common/`` (the repository, or an unpacked bundle)."""
    return Path(__file__).resolve().parent.parent


def bundle_root(name: str) -> str:
    """The absolute folder of bundle ``name``: ``bundles/NAME``, or the root of an unpacked bundle.

    Raises:
        UserError: no such bundle beside ``common``.
    """
    root = repository_root()
    if (root / "configs" / "metadata.json").is_file():
        return str(root)
    folder = root / "bundles" / name
    if not folder.is_dir():
        raise UserError(f"{folder}: no such bundle; run from a complete checkout or download")
    return str(folder)
