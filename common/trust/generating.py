"""Synthetic images from the bundle itself, by its own ``configs/inference.yaml``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import monai.bundle
import numpy as np
import yaml
from monai.bundle import ConfigParser
from PIL import Image

from common.data.structures import DEFAULT_MAP
from common.data.volumes import single_slice, write_nifti
from common.errors import UserError
from common.files import atomic_write
from common.inference.labels import label_set_of
from common.random import generator
from common.trust.sets import ImageSet, joined
from common.trust.settings import STRUCTURES, ReadingSettings
from common.trust.tasks import labels_of

CONFIG = Path("configs") / "inference.yaml"
RUN_ID = "inference"
NOISE, CONDITIONS = "num_samples", "input_dir"
IMAGES, LABELS = "images", "labels"
MASK_VALUE = 255
AXIAL = "axial"


def config_of(bundle: Path) -> Path:
    """The bundle's inference config.

    Raises:
        UserError: no bundle with one there.
    """
    file = bundle / CONFIG
    if not file.is_file():
        raise UserError(f"{file}: no such config; --bundle takes a bundle's folder, e.g. bundles/dcgan_covid")
    return file


def trained_model(bundle: Path) -> Path:
    """Where the bundle's inference looks for its model."""
    parser = ConfigParser()
    parser.read_config(str(config_of(bundle).resolve()))
    return Path(parser.get_parsed_content("ckpt_path"))


def draws_from_noise(bundle: Path) -> bool:
    """Whether the generator takes noise alone, and no conditions."""
    known = yaml.safe_load(config_of(bundle).read_text(encoding="utf-8"))
    return NOISE in known


def generate(
    bundle: Path,
    count: int,
    folder: Path,
    conditions: Path | None = None,
    settings: Mapping[str, Any] | None = None,
) -> None:
    """Runs the bundle's inference; the images go to ``folder``, those made of conditions to its ``images/``.

    Args:
        count: images of a generator of noise; one of conditions makes one of each.
        conditions: folder of masks, label maps or whatever the model's conditions are.
        settings: further ones of the config: ``ckpt_path``, ``seed``, ``device``.
    Raises:
        UserError: the bundle has no model, or a generator of conditions gets none.
    """
    given = dict(settings or {})
    if draws_from_noise(bundle):
        given |= {NOISE: count, "grid": 0, "output_dir": str(folder)}
    elif conditions is None:
        raise UserError(
            f"{bundle}: draws from conditions, and the real images have no labels; give some with --condition"
        )
    else:
        given |= {CONDITIONS: str(conditions), "output_dir": str(folder / IMAGES)}
    monai.bundle.run(run_id=RUN_ID, config_file=str(config_of(bundle).resolve()), **given)


def chosen_conditions(real: ImageSet, heldout: ImageSet, count: int, seed: int) -> ImageSet | None:
    """Labelled slices to generate from, half of the training patients and half of the held-out ones.

    The held-out half shows whether the generator can do what it has not seen, the training half whether it
    gives away what it has. Where one side has too few, the other gives more.

    Returns:
        ``count`` slices, all where there are fewer; None without labels.
    """
    if real.labels is None or heldout.labels is None:
        return None
    first = min(len(real), max(count // 2, count - len(heldout)))
    numbers = (first, min(len(heldout), count - first))
    parts = []
    for side, (images, number) in enumerate(zip((real, heldout), numbers, strict=True)):
        order = generator(seed, "trust", "conditions", side).permutation(len(images))
        parts.append(images.chosen(sorted(order[:number].tolist())))
    return joined(*parts)


def write_conditions(conditions: ImageSet, folder: Path, reading: ReadingSettings) -> Path:
    """Labels as numbered files in ``labels/``, in the values that the model's own files have.

    PNG, or NIfTI where the model takes slices of a certain scale.

    Returns:
        The folder ``labels/``.
    Raises:
        UserError: the model's slices have a scale and are not axial.
    """
    values, spacing = _file_values(reading, len(conditions.structures)), reading.info.get("spacing")
    if spacing is not None and reading.info.get("axis", AXIAL) != AXIAL:
        raise UserError(
            f"conditions of {reading.info['axis']} slices of {spacing} mm cannot be written; give volumes "
            "with --condition"
        )
    for number, label in enumerate(labels_of(conditions)):
        slice_ = values[label[0].round().long().numpy()]  # (S, S)
        path = folder / LABELS / f"condition{number:06d}"
        if spacing is not None:
            place = single_slice(slice_.shape[0], slice_.shape[1], float(spacing))
            write_nifti(path.with_suffix(".nii.gz"), place, slice_[..., None], slice_.dtype)
            continue
        with atomic_write(path.with_suffix(".png")) as temporary:
            Image.fromarray(slice_).save(temporary)
    return folder / LABELS


def _file_values(reading: ReadingSettings, classes: int) -> np.ndarray:
    """What stands in files for the classes 0..K: (K + 1,) uint8, or uint16 where values are larger."""
    labels = label_set_of(reading.info) if reading.kind == STRUCTURES else None
    if labels is None:
        return np.array([0, MASK_VALUE], np.uint8)
    candidates = sorted(labels.label_map or DEFAULT_MAP)
    found = labels.table(candidates, CONFIG).tolist()
    values = [0, *(candidates[found.index(k)] if k in found else 0 for k in range(1, classes + 1))]
    return np.array(values, np.uint8 if max(values) <= MASK_VALUE else np.uint16)
