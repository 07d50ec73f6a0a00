"""Everything a shared bundle holds, as bytes by their path in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.data.registry import REGISTRY_FILE
from common.errors import UserError
from common.files import read_json, shown_files
from common.sharing.configs import as_json, read_config, with_network
from common.sharing.documents import comments_in_the_download, in_the_download
from common.sharing.standalone import code_files, fingerprint, imported_modules, standalone
from common.sharing.weights import shared_bytes

Contents = dict[str, bytes]


def bundle_contents(root: Path, name: str, models: Mapping[str, Path]) -> Contents:
    """Configs, documents, licence, the bundle's code, all of ``common`` and the trained models of a bundle.

    Args:
        root: of the repository.
        models: path in the bundle -> file, see `common.sharing.weights.trained_models`.
    Raises:
        UserError: a config cannot be shared.
    """
    bundle = root / "bundles" / name
    facts = {path: read_json(file) for path, file in models.items() if file.suffix == ".json"}
    code = code_files(root / "common")
    network = facts.get("models/model.json", {}).get("network")
    texts = {**_configs(bundle / "configs", name, network, fingerprint(code)), **_documents(bundle, name)}
    found: Contents = {path: text.encode() for path, text in texts.items()}
    found |= {
        path.relative_to(bundle).as_posix(): path.read_bytes()
        for path in shown_files(bundle / "docs")
        if path.suffix != ".md"
    }
    sources = [*(path for path in shown_files(bundle) if path.suffix == ".py"), root / REGISTRY_FILE]
    found |= {path.relative_to(root).as_posix(): path.read_bytes() for path in sources} | code
    return found | {path: shared_bytes(file) for path, file in models.items()}


def _configs(folder: Path, name: str, network: Mapping[str, Any] | None, build: str) -> dict[str, str]:
    """Every file of ``configs``, and each YAML as JSON beside it, which finds its code from anywhere."""
    found: dict[str, str] = {}
    configs = {file: read_config(file) for file in shown_files(folder) if file.suffix == ".yaml"}
    modules = {module for config in configs.values() for module in imported_modules(config)}
    for file in shown_files(folder):
        path, text = f"configs/{file.relative_to(folder).as_posix()}", file.read_text(encoding="utf-8")
        if file.suffix != ".yaml":
            found[path] = text
            continue
        if file.with_suffix(".json").exists():
            raise UserError(f"{file.with_suffix('.json')}: the JSON is made of {file.name}; delete it")
        config = configs[file]
        if file.stem == "train" and network:
            config = with_network(config, network)
        found[path] = comments_in_the_download(text, name)
        found[path.removesuffix(".yaml") + ".json"] = as_json(standalone(config, modules, build), file)
    return found


def _documents(bundle: Path, name: str) -> dict[str, str]:
    files = [*(path for path in shown_files(bundle / "docs") if path.suffix == ".md"), bundle / "LICENSE"]
    texts = {file.relative_to(bundle).as_posix(): file.read_text(encoding="utf-8") for file in files}
    return {path: in_the_download(text, name) for path, text in texts.items()}
