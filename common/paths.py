"""Folders of the repository and of bundles, whatever the working directory."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

from common.errors import UserError

METADATA = Path("configs", "metadata.json")


def repository_root() -> Path:
    """Returns the folder that holds ``common/`` (the repository, or an unpacked bundle)."""
    return Path(__file__).resolve().parent.parent


def bundle_root(name: str) -> str:
    """Returns the absolute folder of bundle ``name``: ``bundles/NAME``, or the root of an unpacked bundle.

    The bundle whose config is being evaluated comes first: of two downloads in one process only one has given
    the running ``common``.

    Raises:
        UserError: no such bundle next to ``common``.
    """
    calling = _calling_bundle(name)
    if calling is not None:
        return str(calling)
    root = repository_root()
    if (root / METADATA).is_file():
        return str(root)
    folder = root / "bundles" / name
    if not folder.is_dir():
        raise UserError(f"{folder}: no such bundle; run from a complete checkout or download")
    return str(folder)


def _calling_bundle(name: str) -> Path | None:
    """The folder of bundle ``name`` where one of its own configs is being evaluated, found on the stack."""
    monai = sys.modules.get("monai.bundle")
    frame = inspect.currentframe()
    while monai is not None and frame is not None:
        workflow = frame.f_locals.get("self")
        if isinstance(workflow, monai.ConfigWorkflow):
            folder = workflow.config_root_path.resolve().parent
            own = folder.name == name or (folder / "bundles" / name).is_dir()
            return folder if own and (folder / METADATA).is_file() else None
        frame = frame.f_back
    return None
