"""A CSV file that grows by a row per iteration and survives kills."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from common.files import atomic_write, sync

KEYS = ("iteration", "epoch")


class IterationTable:
    """Rows ``iteration,epoch,<names>`` in ``path``; floats as ``repr``, so that they are read back exactly.

    A name that turns up late gets a new column, empty in the earlier rows.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._names: list[str] = []
        self._file: IO[str] | None = None

    def open(self, iteration: int) -> None:
        """Goes on after ``iteration``: later rows, and a last row cut off by a kill, are taken out."""
        self.close()
        header, rows = _read(self.path) if self.path.is_file() else ([], [])
        self._names = header[len(KEYS) :]
        self._rewrite([row for row in rows if int(row[0]) <= iteration])

    def append(self, iteration: int, epoch: int, values: Mapping[str, float]) -> None:
        """Adds the row of one iteration."""
        new = [name for name in values if name not in self._names]
        if new:
            self._widen(new)
        row = [str(iteration), str(epoch), *(_text(values.get(name)) for name in self._names)]
        self._handle().write(_line(row))

    def flush(self) -> None:
        """Puts all rows on the disk."""
        if self._file is not None:
            self._file.flush()
            sync(self.path)

    def close(self) -> None:
        """Writes what is buffered and closes the file."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _handle(self) -> IO[str]:
        if self._file is None:
            self._file = self.path.open("a", encoding="utf-8", newline="", buffering=1)
        return self._file

    def _widen(self, new: list[str]) -> None:
        self.close()
        rows = _read(self.path)[1] if self.path.is_file() else []
        self._names += new
        self._rewrite([row + [""] * len(new) for row in rows])

    def _rewrite(self, rows: list[list[str]]) -> None:
        if not self._names:
            return
        with atomic_write(self.path) as temporary:
            lines = [_line([*KEYS, *self._names]), *map(_line, rows)]
            temporary.write_text("".join(lines), encoding="utf-8", newline="")


def _read(path: Path) -> tuple[list[str], list[list[str]]]:
    """The header and the whole rows: a line without its end was cut off."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    rows = list(csv.reader(line for line in lines if line.endswith("\n")))
    if not rows:
        return [], []
    return rows[0], [row for row in rows[1:] if len(row) == len(rows[0])]


def _text(value: float | None) -> str:
    return "" if value is None else repr(float(value))


def _line(cells: list[str]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(cells)
    return buffer.getvalue()
