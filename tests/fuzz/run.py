"""Reads several hundred damaged or oddly arranged sets by every part of the project; `make fuzz`.

Each set is read rightly (HU within 1, at its place, labels exact, no slice lost without a word) or refused in
one line that names a file or folder. Nothing half-written may be left.

Example:
    python -m tests.fuzz.run --cases 360
    python -m tests.fuzz.run --only 17
"""

from __future__ import annotations

import argparse
import gc
import io
import logging
import os
import re
import signal
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import UserError, root_cause
from tests.fuzz.damages import DAMAGES
from tests.fuzz.inputs import LOWER, PATIENTS, Files, Scan, chest, write
from tests.fuzz.readers import TARGETS, Slice, square

SEED = 16
CASES = 6 * len(DAMAGES)
"""Six of the targets for each damage; with ``len(TARGETS)`` times as many, all of them."""
SECONDS = 30
READ, REFUSED = "read", "refused"
BESIDE_THE_POINT = ("moves from", "hold fewer than", "are empty", "count as one structure")
"""Warnings that any small set gets."""


@dataclass(frozen=True)
class Case:
    """One set and its reader, drawn from (seed, number) alone."""

    number: int
    target: str
    damage: str
    kind: str
    layout: str
    victim: str

    @classmethod
    def drawn(cls, number: int, rng: np.random.Generator) -> Case:
        """Damages and targets take turns, the rest is drawn."""
        damages, targets = list(DAMAGES), list(TARGETS)
        name = damages[number % len(damages)]
        damage = DAMAGES[name]
        for step in range(len(targets)):
            key = targets[(number % len(damages) + number // len(damages) + step) % len(targets)]
            target = TARGETS[key]
            kinds = [kind for kind in target.formats if kind in damage.formats]
            layouts = [
                layout for layout in target.layouts if not damage.masked or "flat" not in target.layouts
            ]
            if kinds and layouts:
                break
        kind = str(rng.choice(kinds))
        single = kind in ("png", "tiff", "flat", "dicom")
        layouts = [layout for layout in layouts if not single or layout not in ("beside", "cases")] or layouts
        return cls(number, key, name, kind, str(rng.choice(layouts)), str(rng.choice(PATIENTS)))


class Messages(logging.Handler):
    """Warnings of a reading."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if not any(part in message for part in BESIDE_THE_POINT):
            self.lines.append(message)


@contextmanager
def watched(noise: Path) -> Iterator[Messages]:
    """Collects warnings, and in the file ``noise`` what libraries write past Python; ends what hangs."""

    def stop(*_: Any) -> None:
        raise TimeoutError(f"hangs for more than {SECONDS} s")

    messages, root = Messages(), logging.getLogger()
    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)  # of computing time, on a busy machine too
    root.addHandler(messages)
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with noise.open("wb") as file:
            os.dup2(file.fileno(), 2)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield messages
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
        root.removeHandler(messages)


def listing(folder: Path) -> dict[str, int]:
    """Files below a folder and their sizes."""
    return {str(p.relative_to(folder)): p.lstat().st_size for p in folder.rglob("*") if not p.is_dir()}


def made(case: Case, rng: np.random.Generator, folder: Path) -> Files:
    """The case's set on disk."""
    damage = DAMAGES[case.damage]
    truth = {name: chest(number) for number, name in enumerate(PATIENTS)}
    stored = dict(truth)
    if damage.stored is not None:
        stored[case.victim] = damage.stored(truth[case.victim])
    files = write(folder / "set 1", case.layout, case.kind, stored, rng, **damage.options)
    files.scans = {name: replace(truth[name], affine=scan.affine) for name, scan in stored.items()}
    if damage.files is not None:
        damage.files(files, case.victim, rng)
    return files


def compare(slices: Sequence[Slice], case: Case, warned: bool) -> list[str]:
    """What is wrong with what was read."""
    damage, target = DAMAGES[case.damage], TARGETS[case.target]
    truths = [(name, z, scan) for name, scan in _truths().items() for z in range(scan.hu.shape[2])]
    grays = np.stack([square(scan.hu[:, :, z].T, LOWER) for _, z, scan in truths])
    marks = np.stack([square(scan.label[:, :, z].T, 0) for _, z, scan in truths])
    marks = marks > 0 if target.labels == "binary" else marks
    faults, seen, parts = Counter[str](), Counter[int](), dict[str, set[str]]()
    for each in slices:
        shown = each.label if each.hu is None else each.hu
        if shown.shape != grays.shape[1:]:
            faults[f"a slice of shape {shown.shape}"] += 1
            continue
        if each.hu is None:
            index = int((marks != each.label).sum((1, 2)).argmin())
        else:
            off = np.abs(grays - each.hu).max((1, 2))
            index = int(off.argmin())
            if off[index] > 1 and not (damage.doubt and warned):
                faults[f"HU or places wrong{_guess(each.hu, grays)}"] += 1
                continue
        seen[index] += 1
        if each.away > 0.5:
            faults[f"lies {each.away:.2f} voxels from its place"] += 1
        parts.setdefault(truths[index][0], set()).add(each.part)
        if target.labels and each.label is None:
            faults["no labels"] += 1
        elif target.labels and (marks[index] != each.label).any():
            faults[f"label differs in {int((marks[index] != each.label).sum())} pixels"] += 1
    if target.whole and len(slices) != len(truths) and not warned:
        faults[f"{len(slices)} slices of {len(truths)} without a word"] += 1
    if target.split and any(len(found) > 1 for found in parts.values()):
        faults["a patient in two splits"] += 1
    return [f"{count} x {what}" for what, count in faults.items()]


def _truths() -> dict[str, Scan]:
    return {name: chest(number) for number, name in enumerate(PATIENTS)}


def _guess(hu: np.ndarray, grays: np.ndarray) -> str:
    ways = {"left-right": hu[:, ::-1], "up-down": hu[::-1], "transposed": hu.T, "1024 too high": hu - 1024}
    named = (name for name, way in ways.items() if np.abs(grays - way).max((1, 2)).min() <= 1)
    least = float(np.abs(grays - hu).max((1, 2)).min())
    return f" ({next(named, f'by {least:.0f} at least')})"


def outcome(case: Case, seed: int, folder: Path) -> tuple[str, list[str]]:
    """What became of a case (`READ` or `REFUSED` and the message), and its faults."""
    rng = np.random.default_rng([seed, case.number])
    Case.drawn(case.number, rng)
    damage, work, scratch = DAMAGES[case.damage], folder / "work", folder / "tmp"
    for place in (folder / "set 1", work, scratch):
        place.mkdir(parents=True)
    files = made(case, rng, folder)
    if case.target == "trust_report":
        for number in (1, 2):
            others = {f"other{number}{k}": chest(10 * number + k) for k in range(3)}
            write(work / f"clean{number}", "folders", "nifti", others, rng)
    before, result, faults = listing(files.root), READ, list[str]()
    tempfile.tempdir = str(scratch)
    try:
        with watched(folder / "noise") as messages, redirect_stdout(io.StringIO()):
            slices = list(TARGETS[case.target].read(files, work))
        warned = bool(messages.lines)
        result = f"{READ}{'; ' + messages.lines[0] if warned else ''}"
        if not damage.blind and not (damage.masked and case.target == "masks"):  # which knows no images
            faults += compare(slices, case, warned)
        del slices
    except Exception as error:
        cause = root_cause(error)
        if isinstance(cause, UserError):
            result = f"{REFUSED}: {cause}"
            faults += refusal_faults(str(cause), folder, damage.fine)
        else:
            where = traceback.extract_tb(cause.__traceback__)[-1]
            result = f"{type(cause).__name__}: {cause}"
            faults.append(f"{result[:300]} ({Path(where.filename).name}:{where.lineno})")
        del cause
    finally:
        tempfile.tempdir = None
    noise = (folder / "noise").read_text(errors="replace").partition("\n")[0]
    if noise and result.startswith(REFUSED):
        faults.append(f"a library writes to the terminal: {noise}")
    if any(name.startswith("tmp/") for name in listing(folder)):
        gc.collect()  # what is removed with an object goes with it
    if listing(files.root) != before:
        faults.append(f"input changed: {sorted(set(listing(files.root)) ^ set(before))[:3]}")
    left = [name for name in listing(folder) if name.startswith("tmp/")]
    hidden = [p.name for p in work.iterdir() if p.name.startswith(".")]
    if left or hidden or (result.startswith(REFUSED) and (work / "prepared").exists()):
        faults.append(f"left behind: {(left or hidden or ['prepared'])[:3]}")
    return result, faults


def refusal_faults(message: str, folder: Path, fine: bool) -> list[str]:
    """What is wrong with a refusal."""
    names = {p.name for p in folder.rglob("*")}
    faults = ["refused though it can be read: " + message] if fine else []
    if "\n" in message:
        faults.append("a message of several lines")
    if re.search(r"/\.[^/]+\.\w+/", message):
        faults.append("names a temporary folder: " + message)
    if str(folder) not in message and not any(name in message for name in names):
        faults.append("names no file: " + message)
    return faults


def run(numbers: Sequence[int], seed: int = SEED, show: bool = False) -> list[str]:
    """Runs the cases of these numbers; returns a line for each fault."""
    lines = []
    for number in numbers:
        case = Case.drawn(number, np.random.default_rng([seed, number]))
        with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
            result, faults = outcome(case, seed, Path(folder).resolve())
        what = f"--seed {seed} --only {number}: {case.target}, {case.damage}, {case.kind}, {case.layout}"
        if show:
            print(f"{what}: {result}", flush=True)
        for fault in faults:
            lines.append(f"{what}: {fault}")
            print("FAULT " + lines[-1], flush=True)
    return lines


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--cases", type=int, default=CASES)
    parser.add_argument("--only", type=int, nargs="+", help="numbers of cases, which are then shown")
    parser.add_argument("--show", action="store_true", help="what became of every case")
    options = parser.parse_args()
    lines = run(options.only or range(options.cases), options.seed, options.show or bool(options.only))
    print(f"{len(options.only or range(options.cases))} sets, {len(lines)} faults")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
