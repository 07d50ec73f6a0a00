"""From what a generator draws to entries of a bank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from bundles.lung_two_stage.banks import GENERATED, NoduleBank, NoduleRecord, SliceBank, SliceRecord
from bundles.lung_two_stage.generation import validity
from bundles.lung_two_stage.generation.candidates import Candidates, GeneratorModel
from bundles.lung_two_stage.generation.images import images_to_alpha, images_to_hu
from common.data.intensity import window_by_name
from common.random import generator

Bank = TypeVar("Bank", NoduleBank, SliceBank)
Valid = NDArray[np.bool_]


def made_nodules(
    candidates: Candidates, model: GeneratorModel, real: NoduleBank, seed: int
) -> tuple[NoduleBank, Valid]:
    """All candidates as a bank of the real one's size, and which of them hold a whole nodule (N,).

    Alpha is cleared of what lies apart from the nodule.
    """
    size, spacing = real.hu.shape[1], float(model.info["spacing_mm"])
    hu = images_to_hu(candidates.images, window_by_name(model.info["window_hu"]), size, size)
    alpha = np.stack([validity.one_nodule(each) for each in images_to_alpha(candidates.images, size)])
    diameters = validity.diameters_mm(alpha, spacing)
    records = [
        NoduleRecord(_name(seed, number), "", category, round(float(diameter), 3), spacing, GENERATED)
        for number, (category, diameter) in enumerate(zip(candidates.categories, diameters, strict=True))
    ]
    return NoduleBank(hu, alpha, records), validity.are_whole(alpha, real.alpha)


def made_slices(
    candidates: Candidates, model: GeneratorModel, real: SliceBank, seed: int
) -> tuple[SliceBank, Valid]:
    """All candidates as a bank of the real one's size, and which of them (N,) have lungs as real ones do."""
    spacing, nominal = float(model.info["spacing_mm"]), bool(model.info.get("nominal_hu", False))
    height, width = real.hu.shape[1:]
    hu = images_to_hu(candidates.images, window_by_name(model.info["window_hu"]), height, width)
    part = any(record.part for record in real.records)
    lung, found = validity.find_lungs(hu, spacing, nominal, part)
    records = [
        SliceRecord(_name(seed, number), "", spacing, nominal, GENERATED, part=part)
        for number in range(len(hu))
    ]
    return SliceBank(hu, lung, np.zeros_like(lung), records), found & validity.have_lungs_as(lung, real.lung)


def taken(bank: Bank, places: Sequence[int], similarity: NDArray[np.float64] | None = None) -> Bank:
    """The entries at these places; with ``similarity`` (N,) of the whole bank, theirs is written down."""
    records = [bank.records[place] for place in places]
    if similarity is not None:
        records = [
            replace(record, similarity=round(float(similarity[place]), 4))
            for record, place in zip(records, places, strict=True)
        ]
    arrays = {name: getattr(bank, name)[list(places)] for name in _arrays(bank)}
    return replace(bank, **arrays, records=records)


def joined(first: Bank, second: Bank) -> Bank:
    """The entries of both."""
    arrays = {name: np.concatenate([getattr(first, name), getattr(second, name)]) for name in _arrays(first)}
    return replace(first, **arrays, records=[*first.records, *second.records])


def some(bank: Bank, most: int, seed: int) -> Bank:
    """At most so many entries, drawn by the seed, in the bank's order."""
    order = generator(seed, "real entries").permutation(len(bank))
    return taken(bank, sorted(int(place) for place in order[:most]))


def _arrays(bank: NoduleBank | SliceBank) -> list[str]:
    return [field.name for field in fields(bank) if field.name != "records"]


def _name(seed: int, number: int) -> str:
    return f"generated_{seed}_{number:06d}"
