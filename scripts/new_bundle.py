"""Creates a new bundle: configs that train on phantoms, a small network to replace, and a case for the tests.

CONTRIBUTING.md explains the next steps.

Example:
    python scripts/new_bundle.py my_bundle
    python -m monai.bundle run training --config_file bundles/my_bundle/configs/train.yaml --max_epochs 1
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from common.cli import Parser
from common.errors import UserError, install_hook
from common.files import atomic_write, read_json
from common.paths import METADATA, repository_root

MODEL = "pix2pix_covid"
"""The bundle whose configs are copied: mask to image."""
COPIED = (
    *(f"configs/{name}.yaml" for name in ("train", "evaluate", "inference", "multi_gpu_train", "mlflow")),
    *("configs/logging.conf", "docs/data_license.txt", "LICENSE"),
)
TEMPLATE = Path(__file__).parent / "template"
NETWORK = re.compile(r"^network_def:\n(?:  .*\n)+(?=discriminator_def:)", re.M)
WEIGHTS = re.compile(r" The weights in models/[^.]*\.")
OTHERWISE = re.compile(rf"\{{_target_: bundles\.{MODEL}\.networks\.\w+.*\}}")


def new_bundle(root: Path, name: str) -> list[Path]:
    """Writes ``bundles/NAME`` and its case for the tests, ``tests/bundles/NAME/case.py``.

    Args:
        root: of the repository.
        name: small letters, digits and underscores.
    Returns:
        The files.
    Raises:
        UserError: the name is invalid or taken.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise UserError(f"'{name}': name a bundle with small letters, digits and underscores, e.g. my_bundle")
    bundle, tests = root / "bundles" / name, root / "tests" / "bundles" / name
    for folder in (bundle, tests):
        if folder.exists():
            raise UserError(f"{folder}: is already there; choose another name")
    texts = {bundle / path: _copied(root / "bundles" / MODEL / path, name) for path in COPIED}
    texts[bundle / METADATA] = _metadata(root / "bundles" / MODEL / METADATA, name)
    texts[bundle / "networks.py"] = _own("networks.txt", name)
    texts[bundle / "docs" / "README.md"] = _own("docs/README.md", name)
    texts[tests / "case.py"] = _own("tests/case.txt", name)
    for path, text in texts.items():
        with atomic_write(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return list(texts)


def _copied(file: Path, name: str) -> str:
    """Returns a file of the model bundle, with the new bundle's name and network."""
    text = file.read_text(encoding="utf-8")
    target = f"_target_: bundles.{name}.networks.Generator"
    text = NETWORK.sub(f"network_def:\n  {target}\n  width: 32\n", text)
    text = OTHERWISE.sub(f"{{{target}}}", text)
    text = WEIGHTS.sub("", text)
    return text.replace(MODEL, name)


def _own(file: str, name: str) -> str:
    return (TEMPLATE / file).read_text(encoding="utf-8").replace("NAME", name)


def _metadata(file: Path, name: str) -> str:
    metadata = read_json(file)
    metadata |= {
        "version": "0.1.0",
        "changelog": {"0.1.0": "first version"},
        "name": name,
        "task": "Say what it makes of what",
        "description": "Say how",
        "data_source": "made phantoms by default",
        "intended_use": "Research on synthetic data. Not for diagnosis.",
        "references": [],
    }
    return json.dumps(metadata, indent=4, ensure_ascii=False) + "\n"


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
