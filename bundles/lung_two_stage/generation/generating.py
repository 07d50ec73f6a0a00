"""Banks of real and generated nodules and slices for the composites (paper D, stage 1)."""

from __future__ import annotations

import logging
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bundles.lung_two_stage.banks import NoduleBank, SliceBank
from bundles.lung_two_stage.generation import making
from bundles.lung_two_stage.generation.candidates import GeneratorModel
from bundles.lung_two_stage.generation.data import BankData
from bundles.lung_two_stage.generation.images import Images
from bundles.lung_two_stage.generation.similarity import MEASURE, RealSide, most_similar
from common.data.new_folder import remade_folder
from common.errors import UserError
from common.files import write_json
from common.handlers.galleries import save_galleries
from common.metrics.features import FeatureExtractor
from common.numbers import whole_number
from common.provenance import UNKNOWN, Provenance

REPORT, GALLERY = "generation.json", "gallery.png"
SHOWN = 36
SEVERAL = 4
"""Candidates for each image that is wanted, where no number is given."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wanted:
    """How many of a layer.

    Args:
        real: real ones at most, drawn from the whole bank by ``seed``.
        generated: generated ones, those that are most like real ones.
        candidates: drawn to choose from; None for four times as many.
        seed: of noise and choice.
    Raises:
        UserError: no such numbers.
    """

    real: int
    generated: int
    candidates: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("real", "generated"):
            whole_number(name, getattr(self, name))
        if self.candidates is not None:
            whole_number("candidates", self.candidates, least=1)
        if self.real + self.generated < 1:
            raise UserError("real 0 and generated 0: nothing is wanted")

    @property
    def drawn(self) -> int:
        """Number of candidates."""
        return max(1, SEVERAL * self.generated) if self.candidates is None else self.candidates


def generate(
    data: BankData,
    model: GeneratorModel,
    wanted: Wanted,
    extractor: FeatureExtractor,
    output_dir: str | os.PathLike[str],
    provenance: Provenance = UNKNOWN,
) -> dict[str, Any]:
    """Writes the bank of a layer with real and generated entries, a report and a gallery.

    Of the candidates those are left out that are no whole nodule (no lungs) and those that are copies of
    training images; of the rest the most similar to real ones are kept, see
    `bundles.lung_two_stage.generation.similarity`. Fewer than wanted are kept where there are not so many,
    which is said.

    Args:
        data: the bank that the model learned from, split as then.
        model: the generator.
        wanted: how many.
        extractor: of the features.
        output_dir: the bank's folder; whole or as it was before.
        provenance: what draws the candidates; the report has it.
    Returns:
        The report, as ``generation.json`` holds it.
    Raises:
        UserError: nothing is left, or the folder cannot be written.
    """
    candidates = model.draw(wanted.drawn, wanted.seed)
    bank: Any = NoduleBank if data.layer.name == "nodules" else SliceBank
    make: Any = making.made_nodules if bank is NoduleBank else making.made_slices
    source = bank.load(data.dataset_dir)
    everything, valid = make(candidates, model, source, wanted.seed)
    side = RealSide(data, extractor)
    found = side.resemblance(candidates.images, candidates.categories)
    places = most_similar(found, valid, candidates.categories, wanted.generated)
    kept = making.taken(everything, places, found.similarity)
    whole = making.joined(making.some(source, wanted.real, wanted.seed), kept)
    counts = {
        "real": len(whole) - len(kept),
        "generated": len(kept),
        "drawn": len(valid),
        "invalid": int((~valid).sum()),
        "copies": int((valid & found.copied).sum()),
    }
    _say(Path(output_dir), counts, wanted)
    report = {
        **provenance.record(),
        "layer": data.layer.name,
        "counts": counts,
        "similarity": _spread(found.similarity[places]),
        "similarity_of_candidates": _spread(found.similarity),
        "measure": MEASURE,
        "extractor": extractor.name,
        "wanted": asdict(wanted),
        "bank": str(data.dataset_dir),
    }
    with remade_folder(output_dir, REPORT) as folder:
        whole.save(folder)
        _gallery(folder / GALLERY, data.train.images, candidates.images[places])
        write_json(folder / REPORT, report)
    return report


def _gallery(path: Path, real: Images, generated: Images) -> None:
    """The first real and the most similar generated images, without alpha."""
    shown = {"real": real[:SHOWN, :1], "generated, most similar first": generated[:SHOWN, :1]}
    save_galleries(path, {name: torch.from_numpy(each) for name, each in shown.items() if len(each)})


def _spread(similarity: np.ndarray) -> dict[str, float] | None:
    """Least, median and largest; None of nothing."""
    if not len(similarity):
        return None
    low, middle, high = np.quantile(similarity, [0, 0.5, 1]).round(4).tolist()
    return {"least": low, "median": middle, "largest": high}


def _say(folder: Path, counts: dict[str, int], wanted: Wanted) -> None:
    if not counts["real"] + counts["generated"]:
        raise UserError(
            f"{folder}: of {counts['drawn']} candidates none is left ({counts['invalid']} invalid, "
            f"{counts['copies']} copies); train longer, or draw more with --candidates"
        )
    logger.info("%s: %s", folder, ", ".join(f"{count} {name}" for name, count in counts.items()))
    if counts["generated"] < wanted.generated:
        logger.warning(
            "%s: %d of %d wanted; train longer, or draw more candidates",
            folder,
            counts["generated"],
            wanted.generated,
        )
