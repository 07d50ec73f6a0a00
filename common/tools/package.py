"""One zip, the same bytes for the same contents, whenever and wherever it is written."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from monai.bundle import ConfigParser, push_to_hf_hub
from monai.utils import OptionalImportError
from tqdm import tqdm

from common.data.public_datasets import REGISTRY_FILE
from common.errors import UserError
from common.files import atomic_write, read_json, shown_files, write_json
from common.paths import repository_root
from common.tools.standalone import code_files, fingerprint, imported_modules, standalone

MOMENT = (1980, 1, 1, 0, 0, 0)  # the first that a zip can hold
PERMISSIONS = 0o100644 << 16  # a plain file, rw-r--r--
UNIX = 3


def write_archive(path: Path, folder: str, contents: Mapping[str, bytes]) -> None:
    """Writes ``contents`` (path in the folder -> bytes) below one top folder, sorted, atomically.

    Files are stored, not compressed: weights do not shrink, and another zlib would give other bytes.

    Raises:
        UserError: the disk is full or the place cannot be written.
    """
    with atomic_write(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(contents):
            entry = zipfile.ZipInfo(f"{folder}/{name}", MOMENT)
            entry.create_system, entry.external_attr = UNIX, PERMISSIONS
            archive.writestr(entry, contents[name])


REFERENCE = re.compile(r"@(\w+)")


def as_json(config: Mapping[str, Any], file: Path) -> str:
    """A config as JSON, expressions and references as they are.

    JSON's keys are texts: a mapping with others, such as label values, becomes an expression that gives it.

    Raises:
        UserError: it holds something that JSON cannot say (a date, infinity, a reference beside such keys).
    """
    try:
        writable = _with_text_keys(dict(config))
        text = json.dumps(writable, indent=4, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UserError(f"{file}: cannot be written as JSON ({error}); write the value in quotes") from error
    if json.loads(text) != writable:
        raise UserError(f"{file}: JSON would change it; write its values in quotes")
    return text + "\n"


def _with_text_keys(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_text_keys(item) for item in value]
    if not isinstance(value, dict):
        return value
    if all(isinstance(key, str) for key in value):
        return {key: _with_text_keys(item) for key, item in value.items()}
    if any(sign in repr(value) for sign in "@$%"):
        raise ValueError(f"{value} has keys that are no texts, and expressions")
    return f"${value!r}"


def read_config(file: Path) -> dict[str, Any]:
    """A YAML or JSON config, nothing in it evaluated."""
    return dict(ConfigParser.load_config_file(str(file)))


def with_network(config: Mapping[str, Any], network: Mapping[str, Any]) -> dict[str, Any]:
    """A training config whose network is the one that the shipped weights belong to.

    `monai.bundle.load` builds the network of ``train.json`` and copies the weights that fit, the others it
    leaves at random without an error: a recipe for another size would give a wrong network.

    Args:
        config: with ``network_def``.
        network: ``{"target", "arguments"}`` as in ``models/model.json``.
    Returns:
        The config with the arguments of the weights; where an argument is ``@KEY``, KEY is set instead, so
        that everything else that reads it follows.
    """
    changed = dict(config)
    before = changed.get("network_def") or {}
    notes = {key: value for key, value in before.items() if key.startswith("_") and key.endswith("_")}
    definition: dict[str, Any] = {**notes, "_target_": network["target"]}
    for name, value in network["arguments"].items():
        setting = REFERENCE.fullmatch(str(before.get(name)))
        if setting and setting[1] in changed:
            changed[setting[1]] = value
            definition[name] = before[name]
        else:
            definition[name] = value
    changed["network_def"] = definition
    return changed


def in_the_download(text: str, name: str) -> str:
    """Commands for the download's own folder: ``bundles/NAME/configs/x.yaml`` becomes ``configs/x.yaml``.

    Code below ``bundles/NAME/`` keeps its place in the download, and so do the names of ``.py`` files.
    """
    return re.sub(rf"\bbundles/{re.escape(name)}/(?![\w/]*\.py\b)", "", text)


def comments_in_the_download(text: str, name: str) -> str:
    """The same for a config: in its comments alone."""
    lines = text.splitlines(keepends=True)
    return "".join(in_the_download(line, name) if line.lstrip().startswith("#") else line for line in lines)


LARGEST = 25_000_000
"""Bytes: MONAI's model zoo takes no larger files."""
KEPT_BACK = ("resume.pt", "resume_previous.pt", "split.json")
PATIENTS = "splits"
"""Of the facts beside a model: the names of its patients, which are not shared."""
LISTED = "large_files.yml"


def trained_models(folder: Path) -> dict[str, Path]:
    """What a download holds of a ``models`` folder: path in the bundle -> file; no state of trainings."""
    if not folder.is_dir():
        return {}
    files = (path for path in shown_files(folder) if path.name not in KEPT_BACK)
    return {f"models/{path.relative_to(folder).as_posix()}": path for path in files}


def shared_bytes(model: Path) -> bytes:
    """A model's file as it is shared: the facts beside it without its patients' names.

    Their number in each part and the rule that split them stay, by which the same data are split alike.
    """
    facts = read_json(model) if model.suffix == ".json" else None
    if not isinstance(facts, dict) or PATIENTS not in facts:
        return model.read_bytes()
    counts = {name: len(part) for name, part in facts.pop(PATIENTS).items()}
    return json.dumps({**facts, "patients": counts}, indent=2).encode() + b"\n"


def parted(models: Mapping[str, Path], largest: int = LARGEST) -> tuple[dict[str, Path], dict[str, Path]]:
    """The models that go into the zip, and those that are too large for it."""
    large = {name: path for name, path in models.items() if path.stat().st_size > largest}
    return {name: path for name, path in models.items() if name not in large}, large


def listed(large: Mapping[str, Path], url: str | None) -> bytes:
    """``large_files.yml`` as `monai.bundle.download_large_files` reads it.

    Args:
        large: path in the bundle -> file.
        url: of the folder that they will lie in.
    Raises:
        UserError: no address for them.
    """
    if not url:
        name, path = next(iter(large.items()))
        raise UserError(
            f"{path}: {path.stat().st_size / 1e6:.0f} MB are too many for the zip, it is listed instead; "
            f"say with --url where others will find the folder that {name} is copied to"
        )
    entries = [
        {"path": name, "url": f"{url}/{name}", "hash_val": sha256(path), "hash_type": "sha256"}
        for name, path in sorted(large.items())
    ]
    return yaml.safe_dump({"large_files": entries}, sort_keys=False).encode()


def copy_large(large: Mapping[str, Path], folder: Path) -> None:
    """Puts them where ``large_files.yml`` says that they are: ``FOLDER/models/...``."""
    for name, path in large.items():
        with atomic_write(folder / name) as temporary:
            shutil.copyfile(path, temporary)


def sha256(path: Path) -> str:
    """The hash of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


Contents = dict[str, bytes]


def bundle_contents(root: Path, name: str, models: Mapping[str, Path]) -> Contents:
    """Configs, documents, licence, the bundle's code, all of ``common`` and the trained models of a bundle.

    Args:
        root: of the repository.
        models: path in the bundle -> file, see `common.tools.package.trained_models`.
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


def push(repository: str, name: str, archive: Path) -> str:
    """Sends what ``archive`` holds, and the files that were too large for it, as a private repository.

    The version becomes a tag. The client takes the token of ``huggingface-cli login`` or of ``HF_TOKEN``.

    Args:
        repository: ``OWNER/NAME`` on the hub.
    Returns:
        The address.
    Raises:
        UserError: no such form of repository, or the client is not installed.
    """
    if repository.count("/") != 1:
        raise UserError(f"--push_to_hub {repository}: write OWNER/NAME")
    with TemporaryDirectory() as folder:
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(folder)
        unpacked = Path(folder, name)
        large = archive.with_suffix("")
        if large.is_dir():  # the hub takes files of any size
            shutil.copytree(large, unpacked, dirs_exist_ok=True)
            (unpacked / LISTED).unlink(missing_ok=True)
        version = archive.stem.rpartition("_v")[2]
        try:
            return str(push_to_hf_hub(repo=repository, name=name, bundle_dir=folder, version=version))
        except OptionalImportError as error:
            raise UserError("--push_to_hub needs the hub's client: pip install huggingface_hub") from error


SUMS, INFO = "SHA256SUMS", Path("models", "model_info.json")


def update_listing(folder: Path, url: str | None) -> None:
    """Lists every zip of ``folder``.

    ``model_info.json`` is what `monai.bundle.get_all_bundles_list` and its kin read: ``NAME_vVERSION`` ->
    ``source`` (the address) and ``checksum`` (here SHA-256). ``SHA256SUMS`` is for ``sha256sum --check``.

    Args:
        url: of the folder; earlier entries keep theirs without one, new ones get the file's name alone.
    """
    zips = sorted(folder.glob("*_v*.zip"))
    sums = {path.name: sha256(path) for path in zips}
    with atomic_write(folder / SUMS) as temporary:
        temporary.write_text("".join(f"{value}  {name}\n" for name, value in sums.items()))
    earlier = read_json(folder / INFO) if (folder / INFO).is_file() else {}
    entries = {}
    for path in zips:
        known = earlier.get(path.stem, {}).get("source", path.name)
        source = f"{url}/{path.name}" if url else known
        entries[path.stem] = {"checksum": sums[path.name], "source": source}
    write_json(folder / INFO, entries)


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


ALL = "all"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """A build as asked for on the command line."""

    name: str  # of a bundle, or `ALL`
    output: Path
    models: Path | None = None  # default bundles/NAME/models
    url: str | None = None  # where others will find `output`
    push_to_hub: str | None = None  # OWNER/REPOSITORY


def build(settings: Settings) -> list[Path]:
    """Writes ``OUTPUT/NAME_vVERSION.zip`` of one or all bundles and lists them; the zips' paths.

    Raises:
        UserError: no such bundle, or one that the model zoo would not take.
    """
    names = bundle_names() if settings.name == ALL else [settings.name]
    if settings.name == ALL and (settings.models or settings.push_to_hub):
        option = "--models" if settings.models else "--push_to_hub"
        raise UserError(f"{option}: takes one bundle, not {ALL}; name it")
    url = settings.url.rstrip("/") if settings.url else None
    built = [
        build_one(name, settings.output, settings.models, url)
        for name in tqdm(names, desc="building", unit="bundle", disable=None)
    ]
    update_listing(settings.output, url)
    if settings.push_to_hub:
        logger.info(f"pushed: {push(settings.push_to_hub, settings.name, built[0])}")
    return built


def build_one(name: str, output: Path, models: Path | None = None, url: str | None = None) -> Path:
    """One bundle's zip; files that are too large for it go to ``OUTPUT/NAME_vVERSION/models``.

    Raises:
        UserError: no such bundle, or one that the model zoo would not take.
    """
    root = repository_root()
    bundle = root / "bundles" / name
    if name not in bundle_names():
        raise UserError(f"{bundle}: no bundle; there are {', '.join(bundle_names())}")
    against = violations(bundle)
    if against:
        more = f" (and {len(against) - 1} more)" if len(against) > 1 else ""
        raise UserError(f"{against[0]}{more}; the model zoo wants it")
    titled = f"{name}_v{read_json(bundle / 'configs' / 'metadata.json')['version']}"
    small, large = parted(trained_models(models or bundle / "models"))
    contents = bundle_contents(root, name, small)
    if large:
        contents[LISTED] = listed(large, f"{url}/{titled}" if url else None)
        copy_large(large, output / titled)
    write_archive(output / f"{titled}.zip", name, contents)
    return output / f"{titled}.zip"


def bundle_names() -> list[str]:
    """The bundles of the repository that can be used: those with ``configs/inference.yaml``."""
    return sorted(p.parents[1].name for p in repository_root().glob("bundles/*/configs/inference.yaml"))
