from __future__ import annotations

import ast
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import yaml
from PIL import Image

from common.paths import repository_root
from common.provenance import UNKNOWN, UNKNOWN_COMMIT, Provenance, commit, fingerprint, mark_header, sha256_of

WEIGHTS = b"weights" * 300_000


@pytest.fixture
def known(tmp_path: Path) -> Provenance:
    """Bundle ``painter`` 1.2.3 with a model of known bytes."""
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "metadata.json").write_text('{"version": "1.2.3"}')
    (tmp_path / "model.pt").write_bytes(WEIGHTS)
    return Provenance("painter", tmp_path, tmp_path / "model.pt", 7)


def test_a_record_names_bundle_model_seed_and_condition(known: Provenance) -> None:
    assert known.text == "synthetic, painter 1.2.3"
    assert known.record("/home/someone/masks/a.nii.gz", slice=3) == {
        "synthetic": True,
        "bundle": "painter",
        "version": "1.2.3",
        "model_sha256": hashlib.sha256(WEIGHTS).hexdigest(),
        "seed": 7,
        "condition": "a.nii.gz",
        "slice": 3,
    }


def test_a_bundle_is_found_by_its_name() -> None:
    metadata = json.loads((repository_root() / "bundles/pix2pix_covid/configs/metadata.json").read_text())
    assert Provenance.of("pix2pix_covid").text == f"synthetic, pix2pix_covid {metadata['version']}"


def test_a_png_says_it_and_is_the_same_each_time(known: Provenance, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        Image.new("L", (4, 3)).save(tmp_path / name, pnginfo=known.png("mask.png"))
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as picture:
        text = picture.info
    assert (text["Description"], text["Software"]) == ("synthetic, painter 1.2.3", "painter 1.2.3")
    assert json.loads(text["Comment"]) == known.record("mask.png")


def test_a_nifti_header_says_it_and_forgets_what_its_source_said(known: Provenance) -> None:
    header = nib.Nifti1Image(np.zeros((1, 1, 1), np.uint8), np.eye(4)).header
    header["descrip"], header["aux_file"] = b"Doe^Jane 1970-01-01, a long text" * 2, b"scan_of_jane.dcm"
    known.mark(header)
    assert header["descrip"].item() == b"synthetic, painter 1.2.3"
    assert header["aux_file"].item() == b"sha256:" + hashlib.sha256(WEIGHTS).hexdigest()[:16].encode()


def test_texts_that_are_too_long_for_a_header_are_cut(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.zeros((1, 1, 1), np.uint8), np.eye(4))
    mark_header(image.header, "d" * 100, "a" * 100)
    nib.save(image, tmp_path / "a.nii")
    header = nib.load(tmp_path / "a.nii").header
    assert (header["descrip"].item(), header["aux_file"].item()) == (b"d" * 79, b"a" * 23)


def test_where_nothing_is_known_it_says_synthetic_all_the_same(tmp_path: Path) -> None:
    header = nib.Nifti1Image(np.zeros((1, 1, 1), np.uint8), np.eye(4)).header
    UNKNOWN.mark(header)
    assert (header["descrip"].item(), header["aux_file"].item()) == (b"synthetic", b"synthetic")
    lost = Provenance("painter", tmp_path, tmp_path / "not_there.pt")
    assert lost.text == "synthetic, painter" and lost.record()["model_sha256"] is None


@pytest.mark.parametrize("name", ["a.b.nii.gz", "a.b.png", "a.b.nii"])
def test_the_json_beside_an_image_has_its_name(known: Provenance, tmp_path: Path, name: str) -> None:
    assert known.write_beside(tmp_path / name, "c.png").name == "a.b.json"
    assert json.loads((tmp_path / "a.b.json").read_text()) == known.record("c.png")


def test_a_hash_is_of_the_files_bytes(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(WEIGHTS)
    assert sha256_of(tmp_path / "f") == hashlib.sha256(WEIGHTS).hexdigest()


UNMARKED = {
    "common/data/merge_datasets.py",  # real images, made alike
    "bundles/lung_two_stage/segmentation/evaluate.py",  # real scans with what was found in them
    "common/trust/gather_sets.py",  # labels of real images, in a folder that goes
}
SAVERS = ("np", "nib", "torch")


def picture_saves(module: Path) -> list[ast.Call]:
    """The calls in a module that write a picture with Pillow."""
    tree = ast.parse(module.read_text())
    names = {name.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for name in node.names}
    if not {"Image", "sheet"} & names:
        return []
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [
        call
        for call in calls
        if isinstance(call.func, ast.Attribute)
        and call.func.attr == "save"
        and not (isinstance(call.func.value, ast.Name) and call.func.value.id in SAVERS)
    ]


def test_no_code_writes_a_picture_without_a_mark() -> None:
    root = repository_root()
    found = {
        path.relative_to(root).as_posix(): picture_saves(path)
        for folder in ("common", "bundles")
        for path in sorted((root / folder).rglob("*.py"))
    }
    marked = {
        path: all({"pnginfo", "comment"} & {word.arg for word in call.keywords} for call in calls)
        for path, calls in found.items()
        if calls
    }
    assert len(marked) >= 11 and {path for path, marks in marked.items() if not marks} == UNMARKED


def components(node: Any) -> Iterator[dict[str, Any]]:
    """Yields every component, a mapping with ``_target_``, in a parsed config."""
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from components(child)
    if isinstance(node, dict) and "_target_" in node:
        yield node


def test_every_config_tells_its_writers_what_makes_the_images() -> None:
    writers = ("SampleWriter", "VolumeWriter", "PairWriter", "SliceWriter", "LatentWalk")
    configs = 0
    for path in sorted(repository_root().glob("bundles/*/configs/*.yaml")):
        config = yaml.safe_load(path.read_text())
        drawing = [part for part in components(config) if str(part["_target_"]).endswith(writers)]
        if drawing and path.name != "generate_pairs.yaml":  # exchanges inference.yaml's writer alone
            assert all(part["provenance"] == "@provenance" for part in drawing), path
            assert config["provenance"]["bundle"] == path.parent.parent.name
            configs += 1
    assert configs == 4


def test_a_folder_without_history_has_no_commit(tmp_path: Path) -> None:
    assert commit(tmp_path) == UNKNOWN_COMMIT
    found = commit(repository_root())
    assert found == UNKNOWN_COMMIT or re.fullmatch(r"[0-9a-f]{12}(, with changes)?", found)


def test_a_fingerprint_is_the_content(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"abc")
    assert fingerprint(tmp_path / "model.pt") == "ba7816bf8f01"
