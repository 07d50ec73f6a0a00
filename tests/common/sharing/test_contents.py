"""What a shared bundle holds."""

from __future__ import annotations

import ast
import json
import re
import sys
from functools import cache
from pathlib import Path

import pytest
from monai.bundle import ConfigParser

from common.config.checks import check_config
from common.paths import repository_root
from common.sharing.building import bundle_names
from common.sharing.contents import Contents, bundle_contents

ROOT = repository_root()
OWN = {"common", "bundles"}
GIVEN = {"torch", "numpy", "monai", "yaml", "jsonschema"}  # MONAI and what its bundles cannot do without
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
    assert {"common/explorer/page/index.html", "common/tuning/trial.py", "datasets.json"} <= set(contents)
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
