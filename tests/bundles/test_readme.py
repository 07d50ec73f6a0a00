"""The quick starts as printed: every command of the first block, on made data and with the tests' sizes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.bundles.case import BundleCase, override_words, quick_start
from tests.bundles.cases import CASES
from tests.bundles.runs import ROOT, forked

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


def given_keys(words: list[str]) -> set[str]:
    return {word.removeprefix("--") for word in words if word.startswith("--")}


def shortened(case: BundleCase, words: list[str], data: Path, folder: Path) -> list[str]:
    """The command with what its placeholders stand for, and with the settings of a tiny run added."""
    run_id, names = words[3], {"OUT": str(folder / "out"), "DATA": str(data), **case.placeholders(data)}
    more = {
        "training": case.settings(data, folder / "run"),
        "evaluating": {"dataset_dir": data, "output_dir": folder / "run"}
        | {**case.beside(data), **case.evaluating(data)},
    }.get(run_id, {"ckpt_path": folder / "run" / "models" / "model.pt", "output_dir": folder / "out"})
    missing = {key: value for key, value in more.items() if key not in given_keys(words)}
    return [*(names.get(word, word) for word in words), *override_words(missing)]


# Of lung_two_stage it is a chain of many stages, which has a test of its own.
@pytest.mark.parametrize("case", CASES[:3], ids=lambda case: case.name)
def test_the_quick_start_works_as_printed(case: BundleCase, data: Path, tmp_path: Path) -> None:
    commands = quick_start(case.root / "docs" / "README.md")
    ran = []
    for number, words in enumerate(commands):
        assert words[:3] == ["-m", "monai.bundle", "run"], words
        line = shortened(case, words, data, tmp_path)
        run = forked(line[2:], tmp_path / f"log_{number}", cwd=ROOT)
        assert run.code == 0, f"{shlex.join(words)}\n{run.err}"
        ran.append(words[3])
    assert ran[:3] == ["training", "evaluating", "inference"]
    assert (tmp_path / "run" / "eval" / "metrics.json").is_file()
    assert list((tmp_path / "out").iterdir())


def test_every_config_that_is_named_is_there(case: BundleCase) -> None:
    own, common = ((folder / "README.md").read_text() for folder in (case.root / "docs", ROOT))
    named = set(re.findall(r"\b(\w+\.yaml)", own))
    named |= set(re.findall(rf"bundles/{case.name}/configs/(\w+\.yaml)", common))
    assert {f"{name}.yaml" for name in (case.train, case.evaluate, "inference")} <= named
    missing = [name for name in sorted(named) if not (case.configs / name).is_file()]
    assert [name for name in missing if not name.startswith("my_")] == []  # my_....yaml is the reader's own
