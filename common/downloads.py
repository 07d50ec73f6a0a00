"""Several downloaded bundles in one process: each brings only the parts of ``common`` that it needs.

The first one loaded gives the package; what it lacks is taken from the other downloads on ``sys.path`` (each
config puts its own there, see `common.config.path`). The downloads should be of the same build: a module that
both have is the first one's.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType


class OtherDownloads(MetaPathFinder):
    """Finds ``common.x`` below any folder of ``sys.path``; asked last, so only for what is missing."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The module's spec, None where no folder has it."""
        package, *parents = fullname.split(".")[:-1] or [""]
        if package != "common":
            return None
        folders = (Path(entry, package, *parents) for entry in sys.path)
        return PathFinder.find_spec(fullname, [str(folder) for folder in folders if folder.is_dir()])


def install_finder() -> None:
    """Lets imports ask an `OtherDownloads` after everything else; once."""
    if not any(type(finder).__name__ == OtherDownloads.__name__ for finder in sys.meta_path):
        sys.meta_path.append(OtherDownloads())
