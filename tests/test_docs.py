"""Pages: what they name is there, how long they are, and what they print is right to the shell."""

from __future__ import annotations

import ast
import re
import subprocess

import pytest

from common.paths import repository_root

ROOT = repository_root()
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_files_that_are_named_are_there() -> None:
    text = "\n".join(page.read_text() for page in PAGES)
    named = set(
        re.findall(r"\b(?:bundles|scripts|docs|tests|common)/[\w/]+\.(?:yaml|py|md|png|json)\b", text)
    )
    assert len(named) > 20
    made = ("my_bundle", "docs/README.md")  # by the reader; of a bundle
    missing = sorted(name for name in named if not (ROOT / name).is_file())
    assert [name for name in missing if not any(part in name for part in made)] == []


def test_the_jobs_are_shell_scripts() -> None:
    jobs = re.findall(r"^```bash\n(.*?)^```", (ROOT / "docs" / "multi_gpu.md").read_text(), re.M | re.S)
    assert jobs and all(job.startswith("#!/bin/bash\n#SBATCH") for job in jobs)
    for job in jobs:
        done = subprocess.run(["bash", "-n"], input=job, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 200


def test_links_within_the_pages_lead_somewhere() -> None:
    dead = []
    for page in PAGES:
        for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text()):
            file, _, heading = link.partition("#")
            target = page.parent / file if file else page
            headings = re.findall(r"^#+ (.*)$", target.read_text(), re.M) if heading else []
            anchors = [re.sub(r"[^\w -]", "", line.lower()).replace(" ", "-") for line in headings]
            if not target.exists() or (heading and heading not in anchors):
                dead.append(f"{page.name}: {link}")
    assert dead == []


ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`((?:bundles|common|scripts|tests)/[\w/]+\.\w+)(?:::(\w+))?`", ARCHITECTURE)))


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_what_is_named_exists(file: str, name: str) -> None:
    path = ROOT / file
    assert path.is_file()
    if name:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}


def test_the_walks_are_five_and_short() -> None:
    walks = ARCHITECTURE.split("## Five walks")[1].split("## ")[0].split("\n**")[1:]
    files = [set(re.findall(r"`((?:bundles|common|scripts)/[\w/]+\.\w+)", walk)) for walk in walks]
    assert len(walks) == 5 and len(NAMED) > 30
    most = [8 if "composite" in walk else 7 for walk in walks]
    assert all(len(named) <= bound for named, bound in zip(files, most, strict=True))


def test_the_page_is_short() -> None:
    assert len(ARCHITECTURE.splitlines()) <= 120
