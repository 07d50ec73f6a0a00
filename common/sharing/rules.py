"""What MONAI's model zoo asks of a bundle's folder, and its template of a bundle's page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common.files import read_json

FILES = (
    "LICENSE",
    "configs/metadata.json",
    "configs/logging.conf",
    "docs/README.md",
    "docs/data_license.txt",
)
KEYS = (
    *("schema", "version", "changelog", "monai_version", "pytorch_version", "numpy_version", "name", "task"),
    *("required_packages_version", "description", "authors", "copyright", "network_data_format"),
    *("intended_use", "data_source", "data_type", "references"),
)
SECTIONS = (
    *("Model overview", "Data", "Preprocessing", "Configuration", "Performance", "Commands"),
    *("System requirements", "Limitations and intended use", "Citation"),
)
SAID = {"split": "how the data are split", "not for diagnosis": "what it is not for"}
VERSION = re.compile(r"\d+\.\d+\.\d+")


def violations(bundle: Path) -> list[str]:
    """All that is missing in the bundle's folder, one line each; empty where it keeps the rules."""
    missing = [f"{bundle / file}: missing" for file in FILES if not (bundle / file).is_file()]
    if not any((bundle / "configs" / f"inference.{kind}").is_file() for kind in ("yaml", "json")):
        missing.append(f"{bundle / 'configs' / 'inference.yaml'}: missing")
    if (bundle / "configs" / "metadata.json").is_file():
        missing += _of_metadata(bundle / "configs" / "metadata.json")
    if (bundle / "docs" / "README.md").is_file():
        missing += _of_readme(bundle / "docs" / "README.md")
    return missing


def _of_metadata(file: Path) -> Iterator[str]:
    metadata: dict[str, Any] = read_json(file)
    yield from (f"{file}: no '{key}'" for key in KEYS if key not in metadata)
    version = str(metadata.get("version"))
    if not VERSION.fullmatch(version):
        yield f"{file}: version '{version}' is not of the form 1.2.3"
    if version not in metadata.get("changelog", {}):
        yield f"{file}: changelog does not speak of version {version}"


def _of_readme(file: Path) -> Iterator[str]:
    text = file.read_text(encoding="utf-8")
    headings = [line.lstrip("# ").strip() for line in text.splitlines() if line.startswith("## ")]
    yield from (f"{file}: no section '{section}'" for section in SECTIONS if section not in headings)
    yield from (
        f"{file}: does not say {what} ('{word}')" for word, what in SAID.items() if word not in text.lower()
    )
    if not text.startswith("# "):
        yield f"{file}: does not begin with a title"
