"""The files of ``common/`` and ``bundles/NAME/`` that a bundle needs to live without the repository."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from common.errors import UserError
from common.sharing.mentions import Mentions, named_in_code


def code_needed(root: Path, name: str, mentions: Iterable[str]) -> list[Path]:
    """All source and data files that the modules in ``mentions`` lead to, by their imports.

    Args:
        root: of the repository.
        name: the bundle's.
        mentions: dotted names of modules, or of what is in them, that the bundle's configs use.
    Returns:
        Sorted paths relative to ``root``.
    Raises:
        UserError: the bundle needs another bundle.
    """
    found: set[Path] = set()
    waiting = list(mentions)
    while waiting:
        dotted = waiting.pop()
        other = dotted.split(".")[1] if dotted.startswith("bundles.") else name
        if other != name:
            raise UserError(f"bundles/{name}: needs {dotted}, of another bundle; move it to common")
        for path in module_files(root, dotted):
            if path not in found:
                found.add(path)
                waiting += _mentions(root / path).modules
    return sorted(found | {file for path in found for file in data_files(root, path)})


def module_files(root: Path, dotted: str) -> list[Path]:
    """The file of the innermost module that ``dotted`` names, and the ``__init__.py`` of all its packages."""
    files: list[Path] = []
    folder = Path()
    for part in dotted.split("."):
        module = (folder / part).with_suffix(".py")
        if (root / module).is_file():
            return [*files, module]
        folder = folder / part
        if not (root / folder).is_dir():
            break
        if (root / folder / "__init__.py").is_file():
            files.append(folder / "__init__.py")
    return files


def data_files(root: Path, module: Path) -> list[Path]:
    """What a module names that is no code: files or folders beside it, JSON files in the root."""
    files: list[Path] = []
    for text in _mentions(root / module).texts:
        if not text or "/" in text or "\0" in text or text.startswith(".") or len(text) > 100:
            continue
        beside = root / module.parent / text
        if beside.is_file() and beside.suffix != ".py":
            files.append(beside.relative_to(root))
        elif beside.is_dir() and not any(beside.rglob("*.py")):
            files += [path.relative_to(root) for path in shown_files(beside)]
        elif text.endswith(".json") and (root / text).is_file():
            files.append(Path(text))
    return files


def shown_files(folder: Path) -> list[Path]:
    """All files below a folder, sorted, without hidden ones, caches and editors' copies."""
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and not path.name.endswith("~")
        and not any(part.startswith((".", "__pycache__")) for part in path.relative_to(folder).parts)
    ]


def _mentions(file: Path) -> Mentions:
    return named_in_code(file.read_text(encoding="utf-8"))
