"""What a shared bundle holds."""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path

import pytest

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


def test_all_imports_are_inside_or_required(shared: tuple[str, Contents]) -> None:
    _, contents = shared
    metadata = json.loads(contents["configs/metadata.json"])
    required = set(metadata["required_packages_version"]) | GIVEN | OPTIONAL | set(sys.stdlib_module_names)
    for path, source in contents.items():
        if not path.endswith(".py"):
            continue
        for module in imported(source.decode()):
            top, file = module.partition(".")[0], module.replace(".", "/")
            if top in OWN:
                assert any(other in contents for other in (f"{file}.py", f"{file}/__init__.py")), (
                    path,
                    module,
                )
            else:
                assert PACKAGES.get(top, top) in required, f"{path}: {top} is no required package"


def imported(source: str) -> set[str]:
    """The modules a source imports by name; ``from package import module`` names the package."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return {name for name in found if not (ROOT / name.replace(".", "/")).is_dir() or name in OWN} - OWN


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
    assert definition == {"_target_": network["target"], "_requires_": "@on_path", **network["arguments"]}


def test_the_page_of_the_explorer_comes_with_its_code() -> None:
    from common.sharing.vendoring import code_needed

    files = {path.as_posix() for path in code_needed(ROOT, "x", ["common.explorer"])}
    assert {"common/explorer/page/index.html", "common/explorer/page/main.js"} <= files
