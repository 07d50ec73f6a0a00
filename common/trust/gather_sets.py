"""Gathers the three sets of a report: reads them, or generates synthetic images with a bundle."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import monai.bundle
import numpy as np
import torch
import yaml
from PIL import Image

from common.data.intensity import Window
from common.data.labels import DEFAULT_MAP
from common.data.splits import RULE, SPLITS
from common.data.splits import split_by_patient as split_samples_by_patient
from common.data.volume_io import single_slice, write_nifti
from common.errors import UserError
from common.files import atomic_write
from common.inference.checkpoint import bundle_model, model_info
from common.inference.datasets import label_set_of
from common.rng import make_rng
from common.training.fit_supervised import Budget
from common.trust.image_sets import (
    ImageSet,
    Sets,
    find_real_records,
    join_sets,
    labels_of,
    read_set,
    split_by_patient,
)
from common.trust.readers import STRUCTURES, ReadingSettings, array_files, shard_files

logger = logging.getLogger(__name__)
FEW_VALUES = 16
"""Slices of scans have more gray values than this; masks and label maps do not."""
MOSTLY = 0.5
COUNTED = 50
"""Images of a set, evenly spread, whose gray values are counted."""


def check_sets(sets: Sets, drawn: bool = False) -> None:
    """Checks that the sets can be compared.

    Args:
        drawn: whether the synthetic images come directly from a generator and so cannot be masks.

    Raises:
        UserError: NaN, images of different sizes, masks where the others are scans, two sets of the same
            images, or a patient or an image that is in the real and in the held-out set.
    """
    named = {"real": sets.real, "heldout": sets.heldout, "synthetic": sets.synthetic}
    for name, images in named.items():
        where, finite = _where(images, name), images.images.isfinite().flatten(1).all(1)
        if len(images) < 2:
            raise UserError(f"{where}: holds {len(images)} image; at least 2 are needed")
        if not bool(finite.all()):
            index = int((~finite).nonzero()[0])
            raise UserError(f"{where}: {images.names[index]} holds NaN or infinite values; remove the image")
    for (name, first), (other, second) in combinations(named.items(), 2):
        may_be_masks = not drawn or "synthetic" not in (name, other)
        _check_alike(first, _where(first, name), second, _where(second, other), may_be_masks)
    _check_separate(sets.real, sets.heldout)


def hash_images(images: ImageSet) -> list[bytes]:
    """Hashes each image's pixels."""
    return [hashlib.sha256(image.contiguous().numpy().tobytes()).digest() for image in images.images]


def _check_alike(first: ImageSet, here: str, second: ImageSet, there: str, may_be_masks: bool) -> None:
    if first.images.shape[1:] != second.images.shape[1:]:
        sizes = [" x ".join(str(side) for side in part.images.shape[2:]) for part in (first, second)]
        raise UserError(
            f"{there}: images of {sizes[1]} pixels but {sizes[0]} in {here}; read both at one size"
        )
    flat = _holds_masks(first), _holds_masks(second)
    if may_be_masks and flat[0] != flat[1]:
        masks, scans = (here, there) if flat[0] else (there, here)
        raise UserError(
            f"{masks}: most images have no more than {FEW_VALUES} gray values, as masks do, those of {scans} "
            "have many; give the images, not their labels"
        )
    if len(first) == len(second) and Counter(hash_images(first)) == Counter(hash_images(second)):
        raise UserError(f"{there}: holds the same {len(second)} images as {here}; give two different sets")


def _check_separate(real: ImageSet, heldout: ImageSet) -> None:
    here, where = _where(real, "real"), _where(heldout, "heldout")
    shared = sorted(set(real.patients) & set(heldout.patients))
    if shared:
        raise UserError(
            f"{where}: patient {shared[0]} is in {here} too ({len(shared)} in all); "
            "held-out images must be of other patients"
        )
    known = dict(zip(hash_images(real), real.names, strict=True))
    for digest, name in zip(hash_images(heldout), heldout.names, strict=True):
        if digest in known:
            raise UserError(f"{where}: {name} is the same image as {known[digest]} in {here}; remove one")


def _holds_masks(images: ImageSet) -> bool:
    indices = torch.linspace(0, len(images) - 1, min(len(images), COUNTED)).long()
    few = [len(image.unique()) <= FEW_VALUES for image in images.images[indices]]
    return sum(few) / len(few) > MOSTLY


def _where(images: ImageSet, name: str) -> str:
    return images.folder or f"the {name} images"


CONFIG = Path("configs") / "inference.yaml"
RUN_ID = "inference"
NOISE, CONDITIONS = "num_samples", "input_dir"
IMAGES, LABELS = "images", "labels"
MASK_VALUE = 255
AXIAL = "axial"


def config_of(bundle: Path) -> Path:
    """Returns the bundle's inference config.

    Raises:
        UserError: no bundle with one there.
    """
    file = bundle / CONFIG
    if not file.is_file():
        raise UserError(f"{file}: no such config; --bundle takes a bundle's folder, e.g. bundles/dcgan_covid")
    return file


def draws_from_noise(bundle: Path) -> bool:
    """Returns whether the bundle's generator takes noise alone, and no conditions."""
    return NOISE in yaml.safe_load(config_of(bundle).read_text(encoding="utf-8"))


def generate(
    bundle: Path,
    count: int,
    folder: Path,
    conditions: Path | None = None,
    settings: Mapping[str, Any] | None = None,
) -> None:
    """Runs the bundle's inference; images go to ``folder``, those made from conditions to its ``images/``.

    Args:
        count: images to draw from noise; a conditional generator makes one for each condition.
        conditions: folder of masks, label maps or other conditions of the model.
        settings: further keys of the config: ``ckpt_path``, ``seed``, ``device``.
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


def choose_conditions(real: ImageSet, heldout: ImageSet, count: int, seed: int) -> ImageSet | None:
    """Draws labelled slices as conditions, half from training patients and half from held-out ones.

    The held-out half shows whether the generator works on unseen conditions, the training half whether it
    reveals its training images. If one side has too few, the other gives more.

    Returns:
        ``count`` slices, all if there are fewer; None without labels.
    """
    if real.labels is None or heldout.labels is None:
        return None
    first = min(len(real), max(count // 2, count - len(heldout)))
    numbers = (first, min(len(heldout), count - first))
    parts = []
    for side, (images, number) in enumerate(zip((real, heldout), numbers, strict=True)):
        order = make_rng(seed, "trust", "conditions", side).permutation(len(images))
        parts.append(images.select(sorted(order[:number].tolist())))
    return join_sets(*parts)


def write_conditions(conditions: ImageSet, folder: Path, reading: ReadingSettings) -> Path:
    """Writes labels as numbered files to ``labels/``, with the values of the model's own files.

    They are PNG, or NIfTI where the model takes slices of a certain pixel spacing.

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
            geometry = single_slice(slice_.shape[0], slice_.shape[1], float(spacing))
            write_nifti(path.with_suffix(".nii.gz"), geometry, slice_[..., None], slice_.dtype)
            continue
        with atomic_write(path.with_suffix(".png")) as temporary:
            Image.fromarray(slice_).save(temporary)
    return folder / LABELS


def _file_values(reading: ReadingSettings, classes: int) -> np.ndarray:
    """Returns the files' values of the classes 0..K: (K + 1,) uint8, or uint16 where values are larger."""
    labels = label_set_of(reading.info) if reading.kind == STRUCTURES else None
    if labels is None:
        return np.array([0, MASK_VALUE], np.uint8)
    candidates = sorted(labels.label_map or DEFAULT_MAP)
    indices = labels.table(candidates, CONFIG).tolist()
    values = [0, *(candidates[indices.index(k)] if k in indices else 0 for k in range(1, classes + 1))]
    return np.array(values, np.uint8 if max(values) <= MASK_VALUE else np.uint16)


FIDELITY, FAITHFULNESS, UTILITY, PRIVACY = "fidelity", "faithfulness", "utility", "privacy"
SECTIONS = (FIDELITY, FAITHFULNESS, UTILITY, PRIVACY)
SEGMENTER_FACTOR = 5
"""Iterations of the faithfulness segmenter relative to one of the twenty or so utility trainings."""


@dataclass(frozen=True)
class Options:
    """The options of a trust report.

    Attributes:
        real: images that the generator was trained on, or a superset of them.
        output: the page's file.
        bundle: folder of the bundle whose model made the images: its facts define how images are read, and it
            can generate some. None for images of any other generator.
        heldout: images of other patients; None splits ``real`` by patient, which needs a bundle.
        synthetic: the synthetic images, or the folder for generated ones.
        condition: their conditions, files of equal names.
        generate: how many images to generate; 0 for none.
        patient_pattern: the patient's part of file names; None for the model's own or the usual patterns.
        ckpt_path: the model; None for the bundle's own.
        sections: some of `SECTIONS`.
        extractor, extractor_weights: see `common.metrics.features.extractor_by_name`.
        max_similarity: of the release gate; None calibrates it.
        hu_offset, source_range: what the images' values mean, see `common.data.hu_calibration.calibrate`.
        mask_threshold, ignore_value: of masks and labels, see `common.data.mask_values`.
        release: folder for a copy of the images that the gate does not flag; None for no copy.
        seed: of all random numbers.
        seeds: utility trainings of each kind.
        budget: of each utility training; the faithfulness segmenter has `SEGMENTER_FACTOR` times as many.
        resamples: of the bootstrap.
        device: of the networks.
        settings: further keys of the bundle's inference config.
        window: without a bundle, HU that become black and white; None for ``lung``.
        image_size: without a bundle, side of the square slices in pixels.
    Raises:
        UserError: an unknown section, a release without the gate, an option that needs a bundle without one,
            or an option that the bundle decides.

    Example:
        >>> options = Options(Path("train"), Path("report.html"), heldout=Path("others"))
        >>> options.segmenter_budget.iterations
        1000
    """

    real: Path
    output: Path
    bundle: Path | None = None
    heldout: Path | None = None
    synthetic: Path | None = None
    condition: Path | None = None
    generate: int = 0
    ckpt_path: Path | None = None
    patient_pattern: str | None = None
    sections: Sequence[str] = SECTIONS
    extractor: str = "gridvgg"
    extractor_weights: Path | None = None
    max_similarity: float | None = None
    release: Path | None = None
    seed: int = 0
    seeds: int = 3
    budget: Budget = field(default_factory=Budget)
    resamples: int = 500
    device: str = "cpu"
    settings: Mapping[str, Any] = field(default_factory=dict)
    window: Window | None = None
    image_size: int | None = None
    hu_offset: float | None = None
    source_range: tuple[float, float] | None = None
    mask_threshold: float | None = None
    ignore_value: int | Sequence[int] | None = None

    @property
    def segmenter_budget(self) -> Budget:
        """The budget of the faithfulness segmenter, which must not be weak."""
        return replace(self.budget, iterations=SEGMENTER_FACTOR * self.budget.iterations)

    def __post_init__(self) -> None:
        unknown = [name for name in self.sections if name not in SECTIONS]
        if unknown or not self.sections:
            raise UserError(f"sections {', '.join(unknown) or 'none'}: choose of {', '.join(SECTIONS)}")
        if self.release is not None and PRIVACY not in self.sections:
            raise UserError("--release needs the gate's answer: take privacy into --sections")
        if self.release is not None and self.generate and self.synthetic is None:
            raise UserError("--release copies files: give with --synthetic a folder for the drawn ones")
        given = [name for name in ("window", "image_size") if getattr(self, name) is not None]
        if self.bundle is not None:
            if given:
                raise UserError(f"--{given[0]}: the bundle's model says how images are read; leave it out")
            return
        if self.generate or self.ckpt_path is not None:
            name = "generate" if self.generate else "ckpt_path"
            raise UserError(f"--{name} needs the bundle of the model; give it with --bundle")
        if self.heldout is None:
            raise UserError(
                "no held-out images: without --bundle nothing tells which patients the generator was trained "
                "on; give those it has not seen with --heldout"
            )


def model_of(options: Options) -> Path | None:
    """Returns the path of the model, existing or not; None without a bundle.

    Raises:
        UserError: no such bundle.
    """
    if options.bundle is None:
        return None
    config_of(options.bundle)
    return options.ckpt_path or bundle_model(options.bundle)


def gather(options: Options, model: Path | None, drawn: Path) -> Sets:
    """Reads real and held-out images, reads or generates synthetic ones, and checks all three sets.

    Args:
        model: its facts define how images are read; without a model the options do.
        drawn: an empty folder for generated images that are not kept.
    Raises:
        UserError: see `read_set`, `generate` and `check_sets`.
    """
    info: Mapping[str, Any] = {} if model is None else model_info(model)
    reading = ReadingSettings.of(info)
    if model is None:
        reading = ReadingSettings.of_any_generator(options.window, options.image_size)
    values = ("hu_offset", "source_range", "mask_threshold", "ignore_value")
    reading = replace(reading, **{name: getattr(options, name) for name in values})
    if options.patient_pattern is not None:
        reading = replace(reading, patient_pattern=options.patient_pattern)
    real = read_set(options.real, reading)
    if options.heldout is None:
        real, heldout = split_by_patient(real, options.seed, training_patients(options.real, reading))
    else:
        heldout = read_set(options.heldout, reading)
        check_unseen(heldout, info.get("splits", {}))
    sets = Sets(real, heldout, _synthetic(options, model, reading, real, heldout, drawn))
    check_sets(sets, drawn=bool(options.generate))
    return sets


def training_patients(folder: Path, reading: ReadingSettings) -> set[str]:
    """Finds which of a folder's patients a model was trained on: those that its metadata name, or, for shared
    weights, which name nobody, those that the rule of its split puts into the training part.

    Returns:
        The patients; none where the metadata tell nothing.
    Raises:
        UserError: the folder's files cannot be told apart by patient, see `find_real_records`.

    Example:
        >>> model = {"image_size": 8, "window_hu": "lung", "splits": {"train": ["p1"], "test": ["p2"]}}
        >>> training_patients(Path("real"), ReadingSettings.of(model))
        {'p1'}
    """
    named, rule = reading.info.get("splits", {}), reading.info.get("split", {})
    if named or not rule:
        return set(named.get("train", ()))
    if rule.get("rule") == RULE and not shard_files(folder) and not array_files(folder):
        samples = find_real_records(folder, reading.kind, reading.patient_pattern, reading.info)
        if len({sample.unit for sample in samples}) >= len(SPLITS):
            logger.warning(f"{folder}: the model names no patients of its training: split by its rule again")
            first, second, third = rule["fractions"]
            parts = split_samples_by_patient(samples, (first, second, third), rule["seed"], where=folder)
            return {sample.patient for sample in parts["train"]}
    logger.warning(
        f"{folder}: the model names no patients of its training, so half of the patients are drawn as held "
        "out; what is said of copies holds only if it learned from none of these: give patients that it has "
        "not seen with --heldout"
    )
    return set()


def check_unseen(heldout: ImageSet, splits: Mapping[str, Any]) -> None:
    """Checks that the model was neither trained nor selected on any held-out patient.

    Raises:
        UserError: names one.

    Example:
        >>> import torch
        >>> heldout = ImageSet(torch.zeros(1, 1, 8, 8), ["p7"], ["p7.png"], folder="others")
        >>> check_unseen(heldout, {"train": ["p1"], "val": ["p2"], "test": ["p7"]})
    """
    known = {*splits.get("train", ()), *splits.get("val", ())}
    learned = known & {*heldout.scans, *heldout.patients}
    if learned:
        raise UserError(
            f"{heldout.folder}: patient {min(learned)} is held out, but the model was trained or chosen on "
            "it; remove the images"
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
        chosen = choose_conditions(real, heldout, options.generate, options.seed)
        labels = None if chosen is None else write_conditions(chosen, folder, reading)
    settings = {"ckpt_path": str(model), "seed": options.seed, **options.settings}
    generate(options.bundle, options.generate, folder, labels, settings)
    return read_set(folder, reading, options.condition if real.labels is not None else None, synthetic=True)
