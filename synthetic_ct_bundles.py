"""Puts this folder first on Python's path, so that ``common`` and ``bundles`` are this project's packages.

Configs import it before anything else: with ``python -m monai.bundle`` the working directory comes first on
the path, and a folder ``common`` of another project there would be taken.
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
