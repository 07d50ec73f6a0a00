"""Pages for all bundles: what they name is there, and what they print is right to the shell."""

from __future__ import annotations

import re
import subprocess

from common.paths import repository_root

ROOT = repository_root()
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]


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
    jobs = re.findall(r"^```bash\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
    assert jobs and all(job.startswith("#!/bin/bash\n#SBATCH") for job in jobs)
    for job in jobs:
        done = subprocess.run(["bash", "-n"], input=job, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
