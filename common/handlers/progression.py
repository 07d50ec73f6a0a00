"""The same samples at several iterations of a run in one picture, as paper B's figure 5."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ignite.engine import Engine, Events

from common.files import atomic_write
from common.handlers.images import COLOURS, ImageGrid
from common.metrics.sheet import sheet, tiled
from common.provenance import SHEET, png_text
from common.training.distributed import is_main

CONDITION, REAL = "condition", "real"


class Progression:
    """Puts the grids of `common.handlers.images.ImageGrid` together: a sample a row, an iteration a column.

    The columns are the condition, the iterations that the grids were told to show and that have passed, the
    last one at the end of the run, and the real image. They are read from the grids' files, so that a resumed
    run shows what its earlier parts drew; an iteration whose file is gone has no column.

    Args:
        images: draws the grids.
        path: of the PNG, usually ``OUTPUT_DIR/logs/progression.png``; written anew at each of the iterations.
        structures: names of the classes where labels are class maps, for the legend.
    """

    def __init__(self, images: ImageGrid, path: str | Path, structures: Sequence[str] = ()) -> None:
        self.images, self.path, self.structures = images, Path(path), list(structures)

    def attach(self, engine: Engine) -> None:
        """Attach after the grids."""
        engine.add_event_handler(Events.STARTED | Events.ITERATION_COMPLETED, self._write_when_due)
        engine.add_event_handler(Events.COMPLETED, self._finish)

    def _write_when_due(self, engine: Engine) -> None:
        if engine.state.iteration in self.images.iterations and is_main():
            self._write(engine.state.iteration)

    def _finish(self, engine: Engine) -> None:
        if not is_main():
            return
        if not self.images.path(engine.state.iteration).is_file():
            self.images.show(engine)
        self._write(engine.state.iteration)

    def _write(self, last: int) -> None:
        passed = {step for step in self.images.iterations if step < last} | {last}
        steps = [step for step in sorted(passed) if self.images.path(step).is_file()]
        grids = [self.images.tiles(step) for step in steps]
        titles, columns = [f"iteration {step:,}" for step in steps], [grid[self._generated] for grid in grids]
        if "label" in self.images.batch:
            titles, columns = [CONDITION, *titles], [grids[-1][0], *columns]
        if "image" in self.images.batch:
            titles, columns = [*titles, REAL], [*columns, grids[-1][-1]]
        names = [f"sample {number + 1}" for number in range(len(columns[0]))]
        coloured = columns[0].shape[1] == COLOURS
        with atomic_write(self.path) as temporary:
            picture = sheet(tiled(columns), titles, names, self.structures if coloured else ())
            picture.save(temporary, format="PNG", pnginfo=png_text(SHEET))

    @property
    def _generated(self) -> int:
        """The row of the generated images in a grid."""
        return 1 if "label" in self.images.batch else 0
