"""Puts the project's root first on Python's path: ``common`` and ``bundles`` are then its own packages.

Each config imports it before anything else. It is needed because those two names are common ones, and
``python -m monai.bundle`` searches the working directory first: a folder ``common`` there would be imported
in place of ours. This module's own name is unique, so it is found wherever the command is started: through
the installation, or in an unpacked bundle, whose root MONAI's ``run`` puts on the path. Where another package
has been imported under one of the names already, one line says so.
"""

import sys
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent


def check_packages() -> None:
    """Raises `SystemExit` with one line where another package has the name of one of this project's."""
    for name in ("common", "bundles"):
        spec = find_spec(name)
        folders = [Path(folder).resolve() for folder in (spec and spec.submodule_search_locations) or ()]
        if ROOT / name not in folders:
            other = folders[0] if folders else spec and spec.origin
            raise SystemExit(
                f"error: {other}: hides this project's package '{name}' ({ROOT / name}); "
                "rename that one, or run from another folder"
            )


if sys.path[:1] != [str(ROOT)]:
    sys.path.insert(0, str(ROOT))
check_packages()
