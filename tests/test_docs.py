"""Pages for all bundles: what they name is there, and what they print is right to the shell."""

from __future__ import annotations

import re
import subprocess

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
