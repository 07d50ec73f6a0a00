"""Creates a new bundle: configs that train on phantoms, a small network to replace, and a case for the tests.

CONTRIBUTING.md explains the next steps.

Example:
    python scripts/new_bundle.py my_bundle
    python -m monai.bundle run training --config_file bundles/my_bundle/configs/train.yaml --max_epochs 1
"""

from __future__ import annotations

from common.cli import Parser
from common.errors import install_hook
from common.paths import repository_root
from common.tools.scaffold import new_bundle


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line."""
    parser = Parser(__doc__)
    parser.add_argument("name", metavar="NAME", help="of the bundle: small letters, digits, underscores")
    name = parser.parse_args(arguments).name
    for path in new_bundle(repository_root(), name):
        print(path)
    print(f"next: your networks in bundles/{name}/networks.py, its case in tests/bundles/cases.py")


if __name__ == "__main__":
    install_hook()
    main()
