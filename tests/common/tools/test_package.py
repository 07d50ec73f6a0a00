from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import shutil
import sys
import zipfile
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from monai.bundle import ConfigParser, get_all_bundles_list, get_bundle_info, get_bundle_versions, scripts
from monai.bundle.scripts import download_large_files

import common
from common.config import check_config
from common.errors import UserError
from common.files import read_json, write_json
from common.paths import repository_root
from common.tools import package as module
from common.tools.package import (
    ALL,
    BuildSettings,
    Contents,
    as_json,
    build,
    bundle_contents,
    bundle_names,
    check_build,
    code_files,
    fingerprint,
    imported_modules,
    in_the_download,
    list_large_files,
    read_config,
    shared_bytes,
    standalone,
    trained_models,
    update_listing,
    violations,
    with_network,
    write_archive,
)

CONTENTS = {"b.txt": b"second", "a/c.txt": b"first", "a.txt": b""}


def test_the_same_contents_are_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_archive(tmp_path / "one.zip", "top", CONTENTS)
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    earlier = os.umask(0o077)
    try:
        write_archive(tmp_path / "two.zip", "top", dict(reversed(CONTENTS.items())))
    finally:
        os.umask(earlier)
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()


def test_one_top_folder_in_order_with_fixed_times_and_permissions(tmp_path: Path) -> None:
    write_archive(tmp_path / "one.zip", "top", CONTENTS)
    with zipfile.ZipFile(tmp_path / "one.zip") as archive:
        assert archive.namelist() == ["top/a.txt", "top/a/c.txt", "top/b.txt"]
        assert {entry.date_time[0] for entry in archive.infolist()} == {1980}
        assert {entry.external_attr >> 16 for entry in archive.infolist()} == {0o100644}
        assert archive.read("top/b.txt") == b"second" and archive.testzip() is None


def hashes(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
    }


@pytest.mark.slow
def test_all_bundles_twice_are_equal_files(tmp_path: Path) -> None:
    for part in ("first", "second"):
        built = build(BuildSettings(ALL, tmp_path / part))
        assert [path.name.partition("_v")[0] for path in built] == bundle_names()
    first = hashes(tmp_path / "first")
    assert {"SHA256SUMS", "models/model_info.json"} < set(first) and len(bundle_names()) == 4
    assert first == hashes(tmp_path / "second")


FILE = Path("configs/train.yaml")


def test_expressions_and_order_stay() -> None:
    config = {"z": "$@a + '/µ'", "a": [1.5, None, True], "b#c": {"_target_": "x.Y"}}
    assert json.loads(as_json(config, FILE)) == config
    assert list(json.loads(as_json(config, FILE))) == ["z", "a", "b#c"]
    assert "µ" in as_json(config, FILE)


@pytest.mark.parametrize("value", [float("inf"), {1: "@x"}, (1, 2), {2, 3}])
def test_what_json_cannot_say_is_refused(value: Any) -> None:
    with pytest.raises(UserError, match=r"train.yaml: .*quotes"):
        as_json({"key": value}, FILE)


def test_label_values_stay_numbers() -> None:
    config = {"label_map": {500: "LV", 205: "Myo"}, "other": [{"a": {1: None}}]}
    written = json.loads(as_json(config, FILE))
    assert written == {"label_map": "${500: 'LV', 205: 'Myo'}", "other": [{"a": "${1: None}"}]}
    assert ConfigParser(written).get_parsed_content("label_map") == config["label_map"]


def test_yaml_is_read_unevaluated(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("a: $1 + 1\nb: '@a'\n")
    assert read_config(tmp_path / "x.yaml") == {"a": "$1 + 1", "b": "@a"}


def test_a_recipe_gets_the_network_of_the_weights() -> None:
    config = {
        "image_size": 128,
        "classes": ["a", "b"],
        "network_def": {
            "_target_": "bundles.x.Net",
            "_requires_": "@ready",
            "image_size": "@image_size",
            "classes": "$len(@classes)",
            "width": 32,
            "dropped": 1,
        },
    }
    arguments = {"image_size": 64, "classes": 2, "width": 8}
    changed = with_network(config, {"target": "bundles.x.Net", "arguments": arguments})
    assert changed["image_size"] == 64
    assert changed["network_def"] == {
        "_target_": "bundles.x.Net",
        "_requires_": "@ready",
        "image_size": "@image_size",
        "classes": 2,
        "width": 8,
    }
    assert config["network_def"]["width"] == 32  # the source is left alone


def test_another_network_replaces_the_recipes() -> None:
    config = {"network_def": {"_target_": "bundles.x.Net", "_requires_": "@ready", "width": 32}}
    changed = with_network(config, {"target": "bundles.x.Other", "arguments": {"depth": 3}})
    assert changed["network_def"] == {"_target_": "bundles.x.Other", "_requires_": "@ready", "depth": 3}


ROOT = repository_root()
OWN = {"common", "bundles"}
GIVEN = {"torch", "filelock", "numpy", "monai", "yaml", "jsonschema"}  # MONAI, torch, what they bring
PACKAGES = {
    "PIL": "pillow",
    "ignite": "pytorch-ignite",
    "skimage": "scikit-image",
    "mpl_toolkits": "matplotlib",
    "google": "tensorboard",  # which brings protobuf
}
OPTIONAL = {"pydicom", "webdataset"}  # asked for where a file needs them


@pytest.fixture(scope="module", params=bundle_names())
def shared(request: pytest.FixtureRequest) -> tuple[str, Contents]:
    """Each bundle in turn, untrained."""
    return request.param, bundle_contents(ROOT, request.param, {})


def test_every_yaml_has_its_json(shared: tuple[str, Contents]) -> None:
    name, contents = shared
    stems = {path.removesuffix(".yaml") for path in contents if path.endswith(".yaml")}
    assert "configs/inference" in stems
    for stem in stems:
        assert json.loads(contents[f"{stem}.json"])
        assert f"bundles/{name}/configs".encode() not in contents[f"{stem}.yaml"]


def test_what_the_configs_lead_to_is_inside_or_required(shared: tuple[str, Contents]) -> None:
    name, contents = shared
    metadata = json.loads(contents["configs/metadata.json"])
    required = set(metadata["required_packages_version"]) | GIVEN | OPTIONAL | set(sys.stdlib_module_names)
    configs = "\n".join(text.decode() for path, text in contents.items() if path.endswith(".json"))
    waiting, seen = set(re.findall(r"\b(?:common|bundles)(?:\.\w+)+", configs)), set()
    while waiting:
        module = waiting.pop()
        seen.add(module)
        if module.partition(".")[0] not in OWN:
            top = module.partition(".")[0]
            assert PACKAGES.get(top, top) in required, f"{module}: {top} is no required package"
        elif module.partition(".")[0] == "common" or module.startswith(f"bundles.{name}"):
            waiting |= imported(contents, module) - seen
        else:
            raise AssertionError(f"{name}: needs {module}, of another bundle")


def imported(contents: Contents, module: str) -> set[str]:
    """What the innermost module that a dotted name leads to imports anywhere, and the packages above it."""
    parts = module.split(".")
    paths = ["/".join(parts[:length]) for length in range(1, len(parts) + 1)]
    files = [file for path in paths for file in (f"{path}.py", f"{path}/__init__.py") if file in contents]
    return {name for file in files for name in imports(contents[file])}


@cache  # bundles share most of their code
def imports(source: bytes) -> frozenset[str]:
    """All that a source imports, with the names that it takes from modules."""
    nodes = list(ast.walk(ast.parse(source)))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    whence = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
    return frozenset(plain | {f"{node.module}.{alias.name}" for node in whence for alias in node.names})


def test_weights_bring_their_facts_and_the_recipe_its_network(tmp_path: Path) -> None:
    network = {
        "target": "bundles.pix2pix_covid.networks.SpadeGenerator",
        "arguments": {"image_size": 32, "channels": [8, 4]},
    }
    (tmp_path / "model.json").write_text(json.dumps({"network": network}))
    (tmp_path / "model.pt").write_bytes(b"weights")
    models = {f"models/{name}": tmp_path / name for name in ("model.json", "model.pt")}
    contents = bundle_contents(ROOT, "pix2pix_covid", models)
    assert contents["models/model.pt"] == b"weights"
    definition = json.loads(contents["configs/train.json"])["network_def"]
    assert definition == {"_target_": network["target"], **network["arguments"], "_requires_": "@_code_"}


def test_all_of_common_and_the_bundles_own_code_come_along(shared: tuple[str, Contents]) -> None:
    name, contents = shared
    assert {"common/explorer/page/index.html", "common/tools/tune.py", "datasets.json"} <= set(contents)
    bundles = {path.split("/")[1] for path in contents if path.startswith("bundles/")}
    assert bundles == {name} and not any("__pycache__" in path for path in contents)


def test_nothing_in_the_json_is_unread(shared: tuple[str, Contents]) -> None:
    _, contents = shared
    for path, text in contents.items():
        config = json.loads(text) if path.startswith("configs/") and path.endswith(".json") else {}
        if "_path_" not in config:
            continue  # an overlay, or no config
        parser = ConfigParser(config)
        parser.parse()
        check_config(
            parser, [run_id for run_id in ("training", "evaluating", "inference") if run_id in parser]
        )


def test_commands_are_for_the_downloads_own_folder() -> None:
    text = "['bundles/mine/configs/a.yaml','bundles/mine/configs/b.yaml'] --logdir bundles/mine/logs"
    assert in_the_download(text, "mine") == "['configs/a.yaml','configs/b.yaml'] --logdir logs"


def test_code_keeps_its_place_and_other_bundles_are_others() -> None:
    text = "see bundles/mine/parts/net.py, bundles/mined/x and bundles.mine.parts"
    assert in_the_download(text, "mine") == text


@pytest.fixture
def dist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of zips whose listing MONAI reads as if it were on GitHub."""
    for name in ("a_b_v0.1.0", "a_b_v0.2.0", "c_v0.1.0"):
        (tmp_path / f"{name}.zip").write_bytes(name.encode())

    def answer(url: str, **_: Any) -> Any:
        text = (tmp_path / "models" / url.rpartition("/models/")[2]).read_text()
        return SimpleNamespace(text=text, raise_for_status=lambda: None)

    monkeypatch.setattr(scripts, "has_requests", True)
    monkeypatch.setattr(scripts, "requests", SimpleNamespace(get=answer))
    return tmp_path


def test_monai_lists_what_is_there(dist: Path) -> None:
    update_listing(dist, "https://example.org/x")
    assert get_all_bundles_list("owner/repo") == [("a_b", "0.2.0"), ("c", "0.1.0")]
    assert get_bundle_versions("a_b", "owner/repo")["all_versions"] == ["0.1.0", "0.2.0"]
    address = get_bundle_info("a_b", repo="owner/repo")["browser_download_url"]
    assert address == "https://example.org/x/a_b_v0.2.0.zip"


def test_checksums_are_the_files(dist: Path) -> None:
    update_listing(dist, None)
    expected = hashlib.sha256(b"c_v0.1.0").hexdigest()
    assert f"{expected}  c_v0.1.0.zip\n" in (dist / "SHA256SUMS").read_text()
    entry = read_json(dist / "models" / "model_info.json")["c_v0.1.0"]
    assert entry == {"checksum": expected, "source": "c_v0.1.0.zip"}


def test_earlier_addresses_stay_and_what_is_gone_goes(dist: Path) -> None:
    update_listing(dist, "https://example.org/x")
    (dist / "a_b_v0.1.0.zip").unlink()
    (dist / "c_v0.2.0.zip").write_bytes(b"new")
    update_listing(dist, None)
    sources = {
        name: entry["source"] for name, entry in read_json(dist / "models" / "model_info.json").items()
    }
    assert sources == {
        "a_b_v0.2.0": "https://example.org/x/a_b_v0.2.0.zip",
        "c_v0.1.0": "https://example.org/x/c_v0.1.0.zip",
        "c_v0.2.0": "c_v0.2.0.zip",
    }


BUNDLES = repository_root() / "bundles"


@pytest.mark.parametrize("name", bundle_names())
def test_every_bundle_keeps_them(name: str) -> None:
    assert violations(BUNDLES / name) == []


@pytest.mark.parametrize("name", bundle_names())
def test_the_versions_it_names_are_those_that_were_tested(name: str) -> None:
    pinned = dict(
        line.split("==")
        for line in (repository_root() / "constraints.txt").read_text().splitlines()
        if "==" in line
    )
    metadata = read_json(BUNDLES / name / "configs" / "metadata.json")
    named = metadata["required_packages_version"]
    named |= {key: metadata[f"{long}_version"] for key, long in (("monai", "monai"), ("torch", "pytorch"))}
    assert named == {package: pinned[package] for package in named}


def test_each_lack_is_one_line(tmp_path: Path) -> None:
    bundle = tmp_path / "mine"
    shutil.copytree(
        BUNDLES / "pix2pix_covid", bundle, ignore=shutil.ignore_patterns("models", "logs", "eval", "data")
    )
    metadata = read_json(bundle / "configs" / "metadata.json")
    del metadata["intended_use"]
    (bundle / "configs" / "metadata.json").write_text(json.dumps(metadata | {"version": "0.9.0"}))
    (bundle / "LICENSE").unlink()
    (bundle / "configs" / "inference.yaml").unlink()
    readme = (
        (bundle / "docs" / "README.md")
        .read_text()
        .replace("## Data", "## Something")
        .replace("diagnosis", "x")
    )
    (bundle / "docs" / "README.md").write_text(readme)
    found = [line.removeprefix(f"{bundle}/") for line in violations(bundle)]
    assert found == [
        "LICENSE: missing",
        "configs/inference.yaml: missing",
        "configs/metadata.json: no 'intended_use'",
        "configs/metadata.json: the changelog lacks version 0.9.0",
        "docs/README.md: no section 'Data'",
        "docs/README.md: does not say what it is not for ('not for diagnosis')",
    ]


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A ``models`` folder after a training."""
    folder = tmp_path / "models"
    folder.mkdir()
    sizes = {"model.pt": 100, "model.json": 10, "resume.pt": 200, "split.json": 20, ".17.model.pt": 5}
    for name, size in sizes.items():
        (folder / name).write_bytes(b"x" * size)
    return folder


def test_state_of_trainings_and_leftovers_are_kept_back(models: Path) -> None:
    assert list(trained_models(models)) == ["models/model.json", "models/model.pt"]
    assert trained_models(models / "nonesuch") == {}


def test_patients_names_are_not_shared(tmp_path: Path) -> None:
    rule = {"rule": "hash 1", "seed": 3, "fractions": [0.6, 0.2, 0.2]}
    facts = {"image_size": 64, "splits": {"train": ["Doe", "Roe"], "val": ["Moe"], "test": []}, "split": rule}
    write_json(tmp_path / "model.json", facts)
    shared = shared_bytes(tmp_path / "model.json")
    assert not any(name in shared for name in (b"Doe", b"Roe", b"Moe"))
    counts = {"train": 2, "val": 1, "test": 0}
    assert json.loads(shared) == {"image_size": 64, "split": rule, "patients": counts}
    assert json.loads((tmp_path / "model.json").read_bytes()) == facts
    write_json(tmp_path / "other.json", {"a": 1.5})
    assert shared_bytes(tmp_path / "other.json") == (tmp_path / "other.json").read_bytes()
    models = {"models/model.json": tmp_path / "model.json"}
    contents = bundle_contents(repository_root(), "dcgan_covid", models)
    assert contents["models/model.json"] == shared and not any(b"Moe" in part for part in contents.values())


def test_large_files_are_listed_as_monai_downloads_them(models: Path, tmp_path: Path) -> None:
    unpacked = tmp_path / "mine"
    unpacked.mkdir()
    listing = list_large_files({"models/model.pt": models / "model.pt"}, tmp_path.as_uri())
    (unpacked / "large_files.yml").write_bytes(listing)
    assert hashlib.sha256(b"x" * 100).hexdigest() in listing.decode()
    download_large_files(str(unpacked))
    assert (unpacked / "models" / "model.pt").read_bytes() == b"x" * 100


def test_large_files_lie_beside_the_zip_and_need_an_address(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.tools.package.LARGEST", 50)
    (models / "model.json").write_text("{}")
    with pytest.raises(UserError, match=r"model.pt: .*--url"):
        build(BuildSettings("pix2pix_covid", tmp_path / "dist", models))
    [path] = build(BuildSettings("pix2pix_covid", tmp_path / "dist", models, "https://example.org/"))
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        listing = archive.read("pix2pix_covid/large_files.yml").decode()
    assert "pix2pix_covid/models/model.json" in names and "pix2pix_covid/models/model.pt" not in names
    assert f"https://example.org/{path.stem}/models/model.pt" in listing
    assert (path.with_suffix("") / "models" / "model.pt").read_bytes() == b"x" * 100


CONFIG: dict[str, Any] = {
    "imports": ["$import math", "$import common.paths as paths", "$import common.errors as numbers"],
    "size": 3,
    "root": "$paths.bundle_root('pix2pix_covid')",
    "network": {
        "_target_": "bundles.pix2pix_covid.networks.UnetGenerator",
        "_requires_": "@size",
        "levels": "@size",
    },
    "layer": {"_target_": "torch.nn.Linear", "in_features": "$numbers.check_int('size', @size, least=1)"},
    "text": "paths.bundle_root",
}


def expression(text: str) -> Any:
    """What becomes of an expression beside the modules of `CONFIG`."""
    return standalone({**CONFIG, "x": text}, [], "")["x"]


def test_modules_and_components_wait_for_the_code() -> None:
    changed = standalone(CONFIG, [], "hash")
    assert list(changed)[:3] == ["_path_", "_code_", "_modules_"]
    assert changed["_code_"]["_requires_"] == "@_path_" and changed["_code_"]["build"] == "hash"
    assert changed["_modules_"]["paths"] == {
        "_target_": "importlib.import_module",
        "_requires_": "@_code_",
        "name": "common.paths",
    }
    assert changed["network"]["_requires_"] == ["@size", "@_code_"]
    assert "_requires_" not in changed["layer"] and changed["imports"] == ["$import math"]
    assert changed["text"] == CONFIG["text"]


def test_the_changed_config_gives_what_the_yaml_gives() -> None:
    build = fingerprint(code_files(Path(common.__file__).parent))
    for config in (CONFIG, standalone(CONFIG, [], build)):
        parser = ConfigParser(config)
        parser.parse()
        assert str(parser.get_parsed_content("root")).endswith("bundles/pix2pix_covid")
        assert parser.get_parsed_content("layer#in_features") == 3


@pytest.mark.parametrize(
    ("text", "changed"),
    [
        ("$paths.a(numbers.b, @size)", "$@_modules_#paths.a(@_modules_#numbers.b, @size)"),
        ("$@paths.a + math.pi", "$@paths.a + math.pi"),
        ("$x.paths['paths'](paths=1)", "$x.paths['paths'](paths=1)"),
        ("$[paths for paths in @size]", "$[paths for paths in @size]"),
        ("$(lambda numbers: numbers + paths.a)", "$(lambda numbers: numbers + @_modules_#paths.a)"),
        ("$'Größe' + paths.a", "$'Größe' + @_modules_#paths.a"),
        ("$import common.paths as paths", "$import common.paths as paths"),
    ],
)
def test_names_of_modules_become_references(text: str, changed: str) -> None:
    assert expression(text) == changed


def test_a_broken_expression_is_one_line() -> None:
    with pytest.raises(UserError, match=r"expression '\$paths\.\(' cannot be read"):
        expression("$paths.(")


def test_an_overlay_adds_to_its_bases_modules() -> None:
    overlay = {"+imports": ["$import bundles.x.y as y"], "size": "$y.a(paths.b)"}
    assert imported_modules(overlay) == {"y": "bundles.x.y"}
    assert standalone(overlay, ["paths"], "hash") == {
        "_modules_#y": {
            "_target_": "importlib.import_module",
            "_requires_": "@_code_",
            "name": "bundles.x.y",
        },
        "+imports": [],
        "size": "$@_modules_#y.a(@_modules_#paths.b)",
    }


def test_another_build_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "common" / "__pycache__").mkdir(parents=True)
    (tmp_path / "common" / "__init__.py").write_text("")
    monkeypatch.setattr(module.common, "__file__", str(tmp_path / "common" / "__init__.py"))
    build = fingerprint({"common/__init__.py": b""})
    (tmp_path / "common" / "__pycache__" / "x.pyc").write_text("a cache is no code")
    check_build(build)
    (tmp_path / "common" / "new.py").write_text("")
    with pytest.raises(UserError, match="another version of common than the bundle was built with"):
        check_build(build)
