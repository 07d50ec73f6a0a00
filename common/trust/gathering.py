"""The three sets of a report, read or drawn as its options say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.inference.models import model_info
from common.trust.checks import check_sets
from common.trust.generating import (
    chosen_conditions,
    config_of,
    draws_from_noise,
    generate,
    trained_model,
    write_conditions,
)
from common.trust.options import Options
from common.trust.reading import ReadingSettings, read_set
from common.trust.sets import ImageSet, Sets, split_by_patient


def model_of(options: Options) -> Path | None:
    """The model's file, whether there is one or not; None without a bundle.

    Raises:
        UserError: no such bundle.
    """
    if options.bundle is None:
        return None
    config_of(options.bundle)
    return options.ckpt_path or trained_model(options.bundle)


def gather(options: Options, model: Path | None, drawn: Path) -> Sets:
    """Reads real and held-out images, reads or draws synthetic ones, and checks that they can be compared.

    Args:
        model: what stands beside it says how images are read; without one the options do.
        drawn: an empty folder for images to be drawn, where they are not to be kept.
    Raises:
        UserError: what `read_set`, `generate` and `check_sets` refuse.
    """
    info: Mapping[str, Any] = {} if model is None else model_info(model)
    reading = (
        ReadingSettings.of_any_generator(options.window, options.image_size)
        if model is None
        else ReadingSettings.of(info)
    )
    reading = replace(reading, hu_offset=options.hu_offset)
    if options.patient_pattern is not None:
        reading = replace(reading, patient_pattern=options.patient_pattern)
    real = read_set(options.real, reading)
    known: Mapping[str, Any] = info.get("splits", {})
    if options.heldout is None:
        real, heldout = split_by_patient(real, options.seed, known.get("train", ()))
    else:
        heldout = read_set(options.heldout, reading)
        refuse_seen(heldout, known)
    sets = Sets(real, heldout, _synthetic(options, model, reading, real, heldout, drawn))
    check_sets(sets, drawn=bool(options.generate))
    return sets


def refuse_seen(heldout: ImageSet, splits: Mapping[str, Any]) -> None:
    """Checks that the model was neither trained nor chosen on any of the held-out patients.

    Raises:
        UserError: names one.
    """
    known = {*splits.get("train", ()), *splits.get("val", ())}
    seen = known & {*heldout.scans, *heldout.patients}
    if seen:
        raise UserError(
            f"{heldout.folder}: patient {min(seen)} is held out, but the model was trained or chosen on it; "
            "remove the images"
        )


def _synthetic(
    options: Options,
    model: Path | None,
    reading: ReadingSettings,
    real: ImageSet,
    heldout: ImageSet,
    drawn: Path,
) -> ImageSet:
    if options.bundle is None or not options.generate:
        if options.synthetic is None:
            raise UserError("no synthetic images: give their folder with --synthetic, or --generate N")
        return read_set(options.synthetic, reading, options.condition, synthetic=True)
    folder, labels = options.synthetic or drawn, options.condition
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder}: is not empty; give another --synthetic for the {options.generate} images")
    if labels is None and not draws_from_noise(options.bundle):
        chosen = chosen_conditions(real, heldout, options.generate, options.seed)
        labels = None if chosen is None else write_conditions(chosen, folder, reading)
    settings = {"ckpt_path": str(model), "seed": options.seed, **options.settings}
    generate(options.bundle, options.generate, folder, labels, settings)
    return read_set(folder, reading, options.condition if real.labels is not None else None, synthetic=True)
