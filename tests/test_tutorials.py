from __future__ import annotations

import importlib
import os
import re
import subprocess
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "docs" / "tutorials").glob("*.ipynb"))
BUNDLES = sorted(path.parents[1].name for path in (ROOT / "bundles").glob("*/configs/metadata.json"))


@pytest.mark.parametrize("bundle", BUNDLES)
def test_every_bundle_has_a_notebook_and_its_readme_links_it(bundle: str) -> None:
    assert bundle in [file.stem for file in NOTEBOOKS]
    page = (ROOT / "bundles" / bundle / "docs" / "README.md").read_text()
    assert f"](../../../docs/tutorials/{bundle}.ipynb)" in page


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_links_in_notebooks_lead_somewhere(file: Path) -> None:
    text = "\n".join(
        cell.source for cell in nbformat.read(file, as_version=4).cells if cell.cell_type == "markdown"
    )
    links = re.findall(r"\]\((?!https?:)([^)#\s]+)", text)
    assert links and [link for link in links if not (file.parent / link).exists()] == []


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_notebooks_are_stored_without_outputs(file: Path) -> None:
    cells = [cell for cell in nbformat.read(file, as_version=4).cells if cell.cell_type == "code"]
    assert cells and not any(cell.outputs or cell.execution_count for cell in cells)


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_what_notebooks_import_and_name_is_there(file: Path) -> None:
    cells = [cell.source for cell in nbformat.read(file, as_version=4).cells if cell.cell_type == "code"]
    text = "\n".join(cells)
    for module, name in re.findall(r"(?m)^from ((?:common|bundles)\.\S+) import (\w+)$", text):
        assert hasattr(importlib.import_module(module), name), f"{module}.{name}"
    bundle = ROOT / "bundles" / file.stem
    files = [bundle / path for path in re.findall(r"\{B\}/(configs/\w+\.yaml)", text)]
    files += [ROOT / path for path in re.findall(r"\bscripts/\w+\.py", text)]
    assert files and [path for path in files if not path.is_file()] == []


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_notebooks_run(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = status()
    book = nbformat.read(file, as_version=4)
    NotebookClient(book, timeout=900, resources={"metadata": {"path": str(file.parent)}}).execute()
    printed = "".join(output.get("text", "") for cell in book.cells for output in cell.get("outputs", ()))
    assert not re.search(r"(?m)^(error:|Traceback)", printed), printed
    assert "model.ts: images differ from PyTorch's by" in printed  # the last command ran
    assert status() == before


def status() -> str:
    """Returns what git sees of the checkout: notebooks leave it as it was."""
    command = ["git", "status", "--porcelain"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=dict(os.environ)).stdout
