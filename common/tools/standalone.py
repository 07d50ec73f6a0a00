"""Configs of a downloaded bundle that find its own code, from any working directory.

In the repository the project is installed, and MONAI's ``run`` puts a bundle's root on the path, so the YAML
that people read has plain imports (``$import common.paths as paths``). `monai.bundle.load`, ``ckpt_export``
and ``verify_net_in_out`` put nothing there, and MONAI evaluates import statements before anything else. The
JSON has three entries more:

- ``_path_`` puts the folder of the download first on Python's path;
- ``_code_`` checks that the ``common`` in use is the one that the bundle was built with;
- ``_modules_`` are the imported modules, by the names that the YAML gives them.

Every component of this project requires ``_code_``, and ``$paths.f()`` becomes ``$@_modules_#paths.f()``.

The YAML of a download stays as it is but for its ``initialize``, see `findable`: from another folder it works
with ``run`` and as a `ConfigWorkflow`, not with ``ckpt_export`` and ``verify_net_in_out``, which run no
``initialize``.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import common
from common.errors import UserError
from common.files import visible_files

PACKAGES = ("common", "bundles")
PATH, CODE, MODULES = "_path_", "_code_", "_modules_"
IMPORTS = "imports"
IMPORT = re.compile(r"\$import ((?:common|bundles)\.[\w.]+) as (\w+)")
OWN_IMPORT = re.compile(rf"{IMPORT.pattern}|\$import synthetic_ct_bundles")
REFERENCE = re.compile(r"@[\w#:]+")

# Finds the configs in use: of a workflow (run, load) or of a command (ckpt_export, verify_net_in_out). The
# nearest folder above them that holds `common` is the download's.
FIND_CODE = (
    "$[path.insert(0, str(root)) for path in [__import__('sys').path]"
    " for config in [next((config for frame in __import__('inspect').stack(0)"
    " for known in [frame.frame.f_locals] for workflow in [known.get('self')]"
    " for config in [workflow.config_root_path"
    " if isinstance(workflow, __import__('monai').bundle.ConfigWorkflow) else known.get('config_file_')]"
    " if config), None)] if config"
    " for first in [config[0] if isinstance(config, (list, tuple)) else config]"
    " for root in [next((folder for folder in __import__('pathlib').Path(first).resolve().parents"
    " if (folder / 'common').is_dir()), None)] if root and str(root) not in path]"
)

# Imports that failed before the path was set are made again.
FORGET_IMPORTS = (
    "$[known.pop(name) for frame in __import__('inspect').stack(0)"
    " for workflow in [frame.frame.f_locals.get('self')]"
    " if isinstance(workflow, __import__('monai').bundle.ConfigWorkflow)"
    " for known in [workflow.parser.ref_resolver.resolved_content]"
    f" for name in list(known) if name.startswith('{IMPORTS}::')]"
)
START = "initialize: # checks and seeds before anything is built\n"


def findable(text: str) -> str:
    """Returns a YAML whose ``initialize`` first finds the code of the download."""
    return text.replace(START, f'{START}- "{FIND_CODE}"\n- "{FORGET_IMPORTS}"\n')


def imported_modules(config: Mapping[str, Any]) -> dict[str, str]:
    """Returns the modules of this project that a config imports, by the names it gives them.

    Example:
        >>> imported_modules({"imports": ["$import torch", "$import common.paths as paths"]})
        {'paths': 'common.paths'}
    """
    statements = [str(item) for key in (IMPORTS, f"+{IMPORTS}") for item in config.get(key) or ()]
    return {found[2]: found[1] for item in statements if (found := IMPORT.fullmatch(item.strip()))}


def standalone(config: Mapping[str, Any], names: Iterable[str], build: str) -> dict[str, Any]:
    """Returns a config that finds its code from any working directory.

    Args:
        config: a YAML of the bundle, as data. One without ``imports`` is an overlay on another.
        names: names of modules in all configs of the bundle; an overlay uses those of its base.
        build: `fingerprint` of the ``common`` that the bundle is shared with.
    Raises:
        UserError: an expression is not valid Python.

    Example:
        >>> config = {"imports": ["$import common.paths as paths"], "root": "$paths.bundle_root('x')"}
        >>> standalone(config, [], build="")["root"]
        "$@_modules_#paths.bundle_root('x')"
    """
    own = imported_modules(config)
    modules = {name: _component("importlib.import_module", name=module) for name, module in own.items()}
    known = frozenset(names) | own.keys()
    changed = {key: _rewritten(value, known) for key, value in config.items()}
    for key in {IMPORTS, f"+{IMPORTS}"} & changed.keys():
        changed[key] = [item for item in changed[key] if not OWN_IMPORT.fullmatch(str(item).strip())]
    if IMPORTS not in config:  # single entries, which keep those of the base
        return {**{f"{MODULES}#{name}": module for name, module in modules.items()}, **changed}
    check = {"_target_": f"{__name__}.check_build", "_requires_": f"@{PATH}", "build": build}
    return {PATH: FIND_CODE, CODE: check, MODULES: modules, **changed}


def check_build(build: str) -> None:
    """Checks that this process runs the ``common`` that a bundle was built with.

    Two downloads of one build share it; a download of another build would run foreign code.

    Raises:
        UserError: it is another one.
    """
    folder = Path(common.__file__).parent
    if fingerprint(code_files(folder)) != build:
        raise UserError(
            f"{folder}: this process runs another version of common than the bundle was built with; "
            "load the bundle in a process of its own, or use bundles of one build"
        )


def code_files(folder: Path) -> dict[str, bytes]:
    """Returns the files of ``common``: path relative to its parent -> bytes."""
    return {path.relative_to(folder.parent).as_posix(): path.read_bytes() for path in visible_files(folder)}


def fingerprint(files: Mapping[str, bytes]) -> str:
    """Hashes files by their paths and contents."""
    parts = (f"{name} {hashlib.sha256(files[name]).hexdigest()}\n" for name in sorted(files))
    return hashlib.sha256("".join(parts).encode()).hexdigest()


def _component(target: str, **arguments: Any) -> dict[str, Any]:
    return {"_target_": target, "_requires_": f"@{CODE}", **arguments}


def _rewritten(value: Any, names: frozenset[str]) -> Any:
    if isinstance(value, list):
        return [_rewritten(item, names) for item in value]
    if isinstance(value, str):
        return _expression(value, names) if value.startswith("$") else value
    if not isinstance(value, dict):
        return value
    inner = {key: _rewritten(item, names) for key, item in value.items()}
    target = str(inner.get("_target_", ""))
    if target.partition(".")[0] not in PACKAGES:
        return inner
    before = inner.get("_requires_", [])
    required = [*(before if isinstance(before, list) else [before]), f"@{CODE}"]
    return {**inner, "_requires_": required[0] if len(required) == 1 else required}


def _expression(text: str, names: frozenset[str]) -> str:
    """Returns an expression with references in place of modules; names that it binds itself stay."""
    source = REFERENCE.sub(lambda found: "_" * len(found[0]), text[1:])  # of the same length
    try:
        nodes = list(ast.walk(ast.parse(source)))
    except SyntaxError as error:
        raise UserError(f"expression {text!r} cannot be read ({error.msg}); correct the config") from error
    if any(isinstance(node, ast.Import | ast.ImportFrom) for node in nodes):
        return text
    bound = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    bound |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    used = [node for node in nodes if isinstance(node, ast.Name) and node.id in names - bound]
    result = text[1:].encode()  # Python counts bytes
    for column in sorted((node.col_offset for node in used), reverse=True):
        result = result[:column] + f"@{MODULES}#".encode() + result[column:]
    return "$" + result.decode()
