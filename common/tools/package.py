"""Builds a bundle's zip for the model zoo: the same bytes for the same contents, wherever it is built.

The zip can be sent to the Hugging Face Hub with MONAI's own command, once it is unpacked:
``python -m monai.bundle push_to_hf_hub --repo OWNER/NAME --name NAME --bundle_dir FOLDER --version VERSION``.

A download finds its own code from any working directory. In the repository the project is installed, and
MONAI's ``run`` puts a bundle's root on the path, so the YAML that people read has plain imports
(``$import common.paths as paths``). `monai.bundle.load`, ``ckpt_export`` and ``verify_net_in_out`` put
nothing there, and MONAI evaluates imports before anything else. So the zip has a JSON beside each YAML, with
three more entries:

- ``_path_`` puts the folder of the download first on Python's path;
- ``_code_`` checks that the ``common`` in use is the one that the bundle was built with;
- ``_modules_`` are the imported modules, by the names that the YAML gives them.

Every component of this project requires ``_code_``, and ``$paths.f()`` becomes ``$@_modules_#paths.f()``. The
YAML changes in its ``initialize`` alone (`findable`): from another folder it works with ``run`` and as a
`ConfigWorkflow`, not with ``ckpt_export`` and ``verify_net_in_out``, which run no ``initialize``.
"""

from __future__ import annotations

import ast
import hashlib
import json
import logging
import re
import shutil
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from monai.bundle import ConfigParser
from tqdm import tqdm

import common
from common.data.public_datasets import REGISTRY_FILE
from common.errors import UserError
from common.files import atomic_write, read_json, visible_files, write_json
from common.paths import METADATA, repository_root
from common.provenance import sha256_of

logger = logging.getLogger(__name__)
Contents = dict[str, bytes]
"""Files of a zip: path inside the bundle's folder -> bytes."""
ALL = "all"
LARGEST = 25_000_000
"""Bytes: MONAI's model zoo takes no larger files."""
LARGE_FILES = "large_files.yml"
SUMS, INFO = "SHA256SUMS", Path("models", "model_info.json")
MOMENT = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip can hold
PERMISSIONS = 0o100644 << 16  # a plain file, rw-r--r--
UNIX = 3
NOT_SHARED = ("resume.pt", "resume_previous.pt", "split.json")
"""Files of a ``models`` folder that only a resumed training needs."""
SETTING = re.compile(r"@(\w+)")


@dataclass(frozen=True)
class BuildSettings:
    """A build as requested on the command line."""

    name: str  # of a bundle, or `ALL`
    output: Path
    models: Path | None = None  # default bundles/NAME/models, the shipped weights
    url: str | None = None  # where others will find `output`


def build(settings: BuildSettings) -> list[Path]:
    """Writes ``OUTPUT/NAME_vVERSION.zip`` of one or all bundles, lists them, and returns the zips' paths.

    Raises:
        UserError: no such bundle, or it violates the model zoo's rules.
    """
    names = bundle_names() if settings.name == ALL else [settings.name]
    if settings.name == ALL and settings.models:
        raise UserError(f"--models: takes one bundle, not {ALL}; name it")
    url = settings.url.rstrip("/") if settings.url else None
    built = [
        build_one(name, settings.output, settings.models, url)
        for name in tqdm(names, desc="building", unit="bundle", disable=None)
    ]
    update_listing(settings.output, url)
    return built


def build_one(name: str, output: Path, models: Path | None = None, url: str | None = None) -> Path:
    """Writes one bundle's zip; files that are too large for it go to ``OUTPUT/NAME_vVERSION/models``.

    Raises:
        UserError: no such bundle, it violates the model zoo's rules, or a large file has no address.
    """
    bundle = repository_root() / "bundles" / name
    if name not in bundle_names():
        raise UserError(f"{bundle}: no such bundle; choose one of {', '.join(bundle_names())}")
    errors = violations(bundle)
    if errors:
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        raise UserError(f"{errors[0]}{more}; the model zoo requires it")
    title = f"{name}_v{read_json(bundle / METADATA)['version']}"
    files = trained_models(models or bundle / "models")
    logger.info(
        f"{name}: {'weights of' if files else 'without weights, none are in'} {models or bundle / 'models'}"
    )
    large = {path: file for path, file in files.items() if file.stat().st_size > LARGEST}
    contents = bundle_contents(repository_root(), name, {k: v for k, v in files.items() if k not in large})
    if large:
        contents[LARGE_FILES] = list_large_files(large, f"{url}/{title}" if url else None)
        for path, file in large.items():
            with atomic_write(output / title / path) as temporary:
                shutil.copyfile(file, temporary)
    write_archive(output / f"{title}.zip", name, contents)
    return output / f"{title}.zip"


def bundle_names() -> list[str]:
    """Returns the names of the repository's bundles, those with ``configs/inference.yaml``."""
    return sorted(p.parents[1].name for p in repository_root().glob("bundles/*/configs/inference.yaml"))


def bundle_contents(root: Path, name: str, models: Mapping[str, Path]) -> Contents:
    """Collects configs, documents, licence, the bundle's code, all of ``common`` and the trained models.

    Args:
        root: of the repository.
        name: of the bundle.
        models: path in the bundle -> file, see `trained_models`.
    Raises:
        UserError: a config cannot be written as JSON.
    """
    bundle, code = root / "bundles" / name, code_files(root / "common")
    facts = read_json(models["models/model.json"]) if "models/model.json" in models else {}
    contents = _configs(bundle / "configs", name, facts.get("network"), fingerprint(code))
    for file in [*visible_files(bundle / "docs"), bundle / "LICENSE"]:
        data = file.read_bytes()
        text = file.suffix == ".md" or file.name == "LICENSE"
        path = file.relative_to(bundle).as_posix()
        contents[path] = in_the_download(data.decode(), name).encode() if text else data
    sources = [path for path in visible_files(bundle) if path.suffix == ".py"]
    sources += [root / "synthetic_ct_bundles.py", root / REGISTRY_FILE]
    contents |= {path.relative_to(root).as_posix(): path.read_bytes() for path in sources} | code
    return contents | {path: shared_bytes(file) for path, file in models.items()}


def _configs(folder: Path, name: str, network: Mapping[str, Any] | None, build: str) -> Contents:
    """Returns all files of ``configs``, and for each YAML a JSON that finds its code from anywhere."""
    contents: Contents = {}
    configs = {file: read_config(file) for file in visible_files(folder) if file.suffix == ".yaml"}
    modules = {module for config in configs.values() for module in imported_modules(config)}
    for file in visible_files(folder):
        path, text = f"configs/{file.relative_to(folder).as_posix()}", file.read_text(encoding="utf-8")
        if file in configs:
            if file.with_suffix(".json").exists():
                raise UserError(f"{file.with_suffix('.json')}: is generated from {file.name}; delete it")
            config = configs[file]
            if file.stem == "train" and network:
                config = with_network(config, network)
            json_path, json_text = Path(path).with_suffix(".json"), standalone(config, modules, build)
            contents[json_path.as_posix()] = as_json(json_text, file).encode()
            lines = text.splitlines(keepends=True)  # paths change in comments only
            text = "".join(in_the_download(x, name) if x.lstrip().startswith("#") else x for x in lines)
            text = findable(text)
        contents[path] = text.encode()
    return contents


def in_the_download(text: str, name: str) -> str:
    """Rewrites paths in commands for the download's own folder; ``.py`` files keep theirs.

    Example:
        >>> in_the_download("bundles/mine/configs/train.yaml, bundles/mine/networks.py", "mine")
        'configs/train.yaml, bundles/mine/networks.py'
    """
    return re.sub(rf"\bbundles/{re.escape(name)}/(?![\w/]*\.py\b)", "", text)


def read_config(file: Path) -> dict[str, Any]:
    """Reads a YAML or JSON config without evaluating it."""
    return dict(ConfigParser.load_config_file(str(file)))


def as_json(config: Mapping[str, Any], file: Path) -> str:
    """Returns a config as JSON text, with expressions and references as they are.

    JSON's keys are strings: a mapping with other keys, such as label values, becomes an expression.

    Raises:
        UserError: JSON cannot hold a value (a date, infinity, a reference in a mapping with such keys).

    Example:
        >>> print(as_json({"label_map": {500: "LV"}}, Path("train.yaml")), end="")
        {
            "label_map": "${500: 'LV'}"
        }
    """
    try:
        writable = _with_string_keys(dict(config))
        text = json.dumps(writable, indent=4, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UserError(f"{file}: cannot be written as JSON ({error}); write the value in quotes") from error
    if json.loads(text) != writable:
        raise UserError(f"{file}: JSON would change it; write its values in quotes")
    return text + "\n"


def _with_string_keys(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_string_keys(item) for item in value]
    if not isinstance(value, dict):
        return value
    if all(isinstance(key, str) for key in value):
        return {key: _with_string_keys(item) for key, item in value.items()}
    if any(sign in repr(value) for sign in "@$%"):
        raise ValueError(f"{value} has expressions, and keys that are not strings")
    return f"${value!r}"


def with_network(config: Mapping[str, Any], network: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a training config whose network is the one that the shipped weights belong to.

    `monai.bundle.load` builds the network of ``train.json`` and copies the weights that fit; it leaves the
    others random without an error, so a recipe for another size would give a wrong network.

    Args:
        config: with ``network_def``.
        network: ``{"target", "arguments"}`` as in ``models/model.json``.
    Returns:
        The config with the arguments of the weights. Where an argument is ``@KEY``, KEY is set instead, so
        that everything else that reads it follows.
    """
    changed = dict(config)
    before = changed.get("network_def") or {}
    notes = {key: value for key, value in before.items() if key.startswith("_") and key.endswith("_")}
    definition: dict[str, Any] = {**notes, "_target_": network["target"]}
    for name, value in network["arguments"].items():
        setting = SETTING.fullmatch(str(before.get(name)))
        if setting and setting[1] in changed:
            changed[setting[1]] = value
            definition[name] = before[name]
        else:
            definition[name] = value
    changed["network_def"] = definition
    return changed


def trained_models(folder: Path) -> dict[str, Path]:
    """Returns the files of a ``models`` folder to share, by path in the bundle, without resume files."""
    if not folder.is_dir():
        return {}
    files = (path for path in visible_files(folder) if path.name not in NOT_SHARED)
    return {f"models/{path.relative_to(folder).as_posix()}": path for path in files}


def shared_bytes(model: Path) -> bytes:
    """Returns a model's file as it is shared: its JSON without the patients' names.

    The number of patients in each part and the rule of the split stay, so the same data are split alike.
    """
    facts = read_json(model) if model.suffix == ".json" else None
    if not isinstance(facts, dict) or "splits" not in facts:
        return model.read_bytes()
    counts = {name: len(part) for name, part in facts.pop("splits").items()}
    return json.dumps({**facts, "patients": counts}, indent=2).encode() + b"\n"


def list_large_files(large: Mapping[str, Path], url: str | None) -> bytes:
    """Returns ``large_files.yml`` as `monai.bundle.download_large_files` reads it.

    Args:
        large: path in the bundle -> file.
        url: of the folder that the files will be uploaded to.
    Raises:
        UserError: there is no URL.
    """
    if not url:
        name, path = next(iter(large.items()))
        raise UserError(
            f"{path}: {path.stat().st_size / 1e6:.0f} MB are too large for the zip, which lists it instead; "
            f"give --url, the address of the folder that {name} will be copied to"
        )
    entries = [
        {"path": name, "url": f"{url}/{name}", "hash_val": sha256_of(path), "hash_type": "sha256"}
        for name, path in sorted(large.items())
    ]
    return yaml.safe_dump({"large_files": entries}, sort_keys=False).encode()


def write_archive(path: Path, folder: str, contents: Contents) -> None:
    """Writes ``contents`` below one top folder of a zip, sorted, atomically.

    Files are stored, not compressed: weights do not shrink, and another zlib would give other bytes.

    Raises:
        UserError: the disk is full or the folder cannot be written.
    """
    with atomic_write(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(contents):
            entry = zipfile.ZipInfo(f"{folder}/{name}", MOMENT)
            entry.create_system, entry.external_attr = UNIX, PERMISSIONS
            archive.writestr(entry, contents[name])


def update_listing(folder: Path, url: str | None) -> None:
    """Lists every zip of ``folder`` in ``SHA256SUMS`` and ``models/model_info.json``.

    The latter is what `monai.bundle.get_all_bundles_list` and its relatives read: ``NAME_vVERSION`` ->
    ``source`` (the URL) and ``checksum`` (SHA-256).

    Args:
        url: of the folder; without it earlier entries keep their URL and new ones get the file's name.
    """
    zips = sorted(folder.glob("*_v*.zip"))
    sums = {path.name: sha256_of(path) for path in zips}
    with atomic_write(folder / SUMS) as temporary:
        temporary.write_text("".join(f"{value}  {name}\n" for name, value in sums.items()))
    earlier = read_json(folder / INFO) if (folder / INFO).is_file() else {}
    entries = {}
    for path in zips:
        known = earlier.get(path.stem, {}).get("source", path.name)
        source = f"{url}/{path.name}" if url else known
        entries[path.stem] = {"checksum": sums[path.name], "source": source}
    write_json(folder / INFO, entries)


FILES = ("LICENSE", str(METADATA), "configs/logging.conf", "docs/README.md", "docs/data_license.txt")
KEYS = (
    *("schema", "version", "changelog", "monai_version", "pytorch_version", "numpy_version", "name", "task"),
    *("required_packages_version", "description", "authors", "copyright", "network_data_format"),
    *("intended_use", "data_source", "data_type", "references"),
)
SECTIONS = (
    *("Model overview", "Data", "Preprocessing", "Configuration", "Performance", "Commands"),
    *("System requirements", "Limitations and intended use", "Citation"),
)
STATEMENTS = {"split": "how the data are split", "not for diagnosis": "what it is not for"}


def violations(bundle: Path) -> list[str]:
    """Returns the model zoo's rules that a bundle's folder violates, one line each."""
    errors = [f"{bundle / file}: missing" for file in FILES if not (bundle / file).is_file()]
    if not any((bundle / "configs" / f"inference.{kind}").is_file() for kind in ("yaml", "json")):
        errors.append(f"{bundle / 'configs' / 'inference.yaml'}: missing")
    if (bundle / METADATA).is_file():
        errors += _metadata_violations(bundle / METADATA)
    if (bundle / "docs" / "README.md").is_file():
        errors += _readme_violations(bundle / "docs" / "README.md")
    return errors


def _metadata_violations(file: Path) -> Iterator[str]:
    metadata: dict[str, Any] = read_json(file)
    yield from (f"{file}: no '{key}'" for key in KEYS if key not in metadata)
    version = str(metadata.get("version"))
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        yield f"{file}: version '{version}' is not of the form 1.2.3"
    if version not in metadata.get("changelog", {}):
        yield f"{file}: the changelog lacks version {version}"


def _readme_violations(file: Path) -> Iterator[str]:
    text = file.read_text(encoding="utf-8")
    headings = [line.lstrip("# ").strip() for line in text.splitlines() if line.startswith("## ")]
    yield from (f"{file}: no section '{section}'" for section in SECTIONS if section not in headings)
    for word, meaning in STATEMENTS.items():
        if word not in text.lower():
            yield f"{file}: does not say {meaning} ('{word}')"
    if not text.startswith("# "):
        yield f"{file}: does not begin with a title"


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
    return {match[2]: match[1] for item in statements if (match := IMPORT.fullmatch(item.strip()))}


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
    source = REFERENCE.sub(lambda match: "_" * len(match[0]), text[1:])  # of the same length
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
