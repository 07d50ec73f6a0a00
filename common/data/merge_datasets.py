"""Merges data sets into one with equal masks, intensity range and size, and one split by patient."""

from __future__ import annotations

import hashlib
import logging
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from common.data.image_io import SIXTEEN_BITS, Pixels, read_pair, read_picture
from common.data.intensity import Standardiser, Window, to_unit
from common.data.patients import join_persons, thumbnail
from common.data.public_datasets import LocalDataset, source_samples
from common.data.samples import Sample, with_values
from common.data.slice_geometry import fit_mask, fit_square
from common.data.splits import split_by_patient, write_splits
from common.errors import UserError
from common.files import atomic_folder, write_json

logger = logging.getLogger(__name__)
# 16 bits resolve a lung window of 1 400 HU to 0.02 HU, 8 bits to 5.5 HU.
FULL_SCALE = SIXTEEN_BITS[1]
MR = "MR"
PERCENTILES = (1.0, 99.0)  # black and white of magnetic resonance slices


@dataclass(frozen=True)
class MergeSettings:
    """Settings of `harmonise`.

    Args:
        image_size: side of the slices in pixels.
        window: HU range that becomes [0, 1].
        standardise: ``none``, ``landmarks`` or ``histogram``, for slices in unknown windows (not in HU), see
            `common.data.intensity.Standardiser`; learned from the training split.
        keep_empty: whether to keep slices with an empty mask.
        seed, fractions: of the split into training, validation and test patients.
        hu_offset, source_range: what the values of CT mean, see `common.data.hu_calibration.calibrate`; of
            MR, which has no unit, black and white are percentiles.
        mask_threshold, ignore_value: what the values of masks mean, see `common.data.samples.with_values`; a
            threshold replaces the set's own rule and `LocalDataset.foreground`.
        fit: how slices become square, see `common.data.slice_geometry.fit_square`.
    """

    image_size: int
    window: Window
    standardise: str = "none"
    keep_empty: bool = False
    seed: int = 0
    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15)
    hu_offset: float | None = None
    source_range: tuple[float, float] | None = None
    mask_threshold: float | None = None
    ignore_value: int | tuple[int, ...] | None = None
    fit: str = "pad"


@dataclass(frozen=True)
class Slice:
    """A harmonised slice in memory: image float32 [0, 1], mask uint8 {0, 1} or None, both (S, S)."""

    image: np.ndarray
    mask: np.ndarray | None
    is_hu: bool


@dataclass(frozen=True)
class Written:
    """A harmonised slice on disk with its source and thumbnail."""

    sample: Sample
    source: LocalDataset
    original: Sample
    is_hu: bool
    thumbnail: np.ndarray


def harmonise(
    sources: Sequence[LocalDataset], output: str | Path, settings: MergeSettings, *, progress: bool = True
) -> dict[str, int]:
    """Writes ``images/`` and ``masks/`` from all sources into a new folder, which is whole or absent.

    Images are 16-bit PNG (0..65535 for [0, 1]), masks 8-bit PNG {0, 255} (nearest neighbour), both named
    ``PATIENT_NUMBER.png``, so that the layout ``image_mask_folders`` finds the patients. ``splits.json``
    splits by patient; patients that several sets share are found by the registry's rules and by equal slices.
    ``provenance.json`` names the source of each slice. Sets without masks give images alone.

    Args:
        sources: the sets on disk.
        output: folder to write; must not exist.
        settings: see `MergeSettings`.
        progress: whether to show a progress bar.
    Returns:
        number of slices in each split, and of those dropped for an empty mask (``empty``).
    Raises:
        UserError: ``output`` exists or lies in a source, a source is unreadable, or masked and unmasked sets
            are mixed.

    Example:
        >>> import tempfile
        >>> from common.data.public_datasets import load_registry
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for n, name in enumerate(("case1_1", "case2_1", "case3_1")):
        ...         pixels = np.random.default_rng(n).integers(0, 255, (16, 16), np.uint8)
        ...         for kind, values in (("images", pixels), ("masks", pixels // 200 * np.uint8(255))):
        ...             _ = (Path(folder) / "set" / kind).mkdir(parents=True, exist_ok=True)
        ...             Image.fromarray(values).save(Path(folder) / "set" / kind / f"{name}.png")
        ...     source = LocalDataset(load_registry()["covid_lesion_collection"], Path(folder) / "set")
        ...     settings = MergeSettings(image_size=8, window=Window(-1000, 400))
        ...     harmonise([source], Path(folder) / "merged", settings, progress=False)
        {'train': 1, 'val': 1, 'test': 1, 'empty': 0}
    """
    standardiser = Standardiser(settings.standardise, settings.window)
    for source in sources:
        if Path(output).resolve().is_relative_to(source.folder.resolve()):
            raise UserError(f"{output}: lies inside the set {source.folder}; choose another --output")
    with atomic_folder(output) as folder:
        slices = [(source, sample) for source in sources for sample in source_samples(source)]
        if len({sample.mask is None for _, sample in slices}) > 1:
            raise UserError(f"{output}: sets with and without masks do not merge; prepare them separately")
        written = list(_write_all(slices, folder, settings, progress))
        if not written:
            raise UserError(f"{sources[0].folder}: every mask is empty; see --keep_empty and --foreground")
        splits = _split(written, settings, len(sources) > 1, output)
        _standardise(written, {sample.image for sample in splits["train"]}, standardiser)
        write_splits(folder / "splits.json", splits)
        write_json(folder / "provenance.json", _provenance(written, settings, standardiser))
    return {name: len(part) for name, part in splits.items()} | {"empty": len(slices) - len(written)}


def harmonise_slice(sample: Sample, settings: MergeSettings, modality: str = "CT") -> Slice:
    """Reads, windows and resizes a slice and its mask."""
    meaning = (settings.hu_offset, settings.source_range) if modality != MR else (0.0, None)
    (sample,) = with_values([sample], *meaning, settings.mask_threshold, settings.ignore_value)
    pixels, mask = read_pair(sample)
    is_hu, source_range = value_range_of(pixels, modality)
    unit = to_unit(pixels.values, settings.window, is_hu, source_range)
    image = np.clip(fit_square(unit, settings.image_size, settings.fit), 0.0, 1.0)
    label = None if mask is None else fit_mask(mask, settings.image_size, settings.fit)
    return Slice(image, label, is_hu)


def value_range_of(pixels: Pixels, modality: str) -> tuple[bool, tuple[float, float]]:
    """Whether values are HU, and the values of black and white otherwise; of MR two percentiles."""
    if modality != MR:
        return pixels.is_hu, pixels.source_range
    lower, upper = np.percentile(pixels.values, PERCENTILES)
    return False, (float(lower), float(max(upper, lower + 1)))


def _write_all(
    slices: Sequence[tuple[LocalDataset, Sample]], folder: Path, settings: MergeSettings, progress: bool
) -> Iterator[Written]:
    numbers: Counter[str] = Counter()
    for source, sample in tqdm(slices, desc="harmonise", unit="slice", disable=None if progress else True):
        part = harmonise_slice(sample, settings, source.dataset.modality)
        if part.mask is not None and not part.mask.any() and not settings.keep_empty:
            continue
        patient = re.sub(r"[^A-Za-z0-9.-]+", "-", sample.patient)
        name = f"{patient}_{numbers[patient]:04d}.png"
        numbers[patient] += 1
        image = _save(_sixteen_bits(part.image), folder / "images" / name)
        mask = None if part.mask is None else _save(part.mask * np.uint8(255), folder / "masks" / name)
        site = f"{source.dataset.name} {sample.site}"
        merged = Sample(image, mask, patient, group=sample.group, person=sample.person, site=site)
        yield Written(merged, source, sample, part.is_hu, thumbnail(part.image))


def _split(
    written: Sequence[Written], settings: MergeSettings, merged: bool, output: str | Path
) -> dict[str, list[Sample]]:
    """Splits by person; in a merged set groups that one set reports separately are split as well."""
    samples = [item.sample for item in written]
    if not merged:
        return split_by_patient(samples, settings.fractions, settings.seed, where=output)
    sets = [item.source.dataset.name for item in written]
    samples = join_persons(samples, sets, np.stack([item.thumbnail for item in written]))
    joined = len({sample.patient for sample in samples}) - len({sample.unit for sample in samples})
    if joined:
        logger.warning("%d patients share slices with patients of another set: kept together", joined)
    return split_by_patient(samples, settings.fractions, settings.seed, apart=(), where=output)


def _standardise(written: Sequence[Written], training: set[Path], standardiser: Standardiser) -> None:
    """Standardises the images of scans that are not in HU, as learned from the training scans."""
    if standardiser.method == "none":
        return
    scans: dict[str, list[Path]] = defaultdict(list)
    for item in written:
        if not item.is_hu:
            scans[f"{item.source.dataset.name} {item.sample.patient}"].append(item.sample.image)
    learnt = {scan: [_load(path) for path in paths] for scan, paths in scans.items() if paths[0] in training}
    standardiser.fit(learnt)
    for paths in scans.values():
        for path, image in zip(paths, standardiser.apply_scan([_load(path) for path in paths]), strict=True):
            _save(_sixteen_bits(image), path)


def _sixteen_bits(image: np.ndarray) -> np.ndarray:
    return np.rint(image * FULL_SCALE).astype(np.uint16)


def _save(array: np.ndarray, path: Path) -> Path:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(array).save(path)
    return path


def _load(path: Path) -> np.ndarray:
    return (read_picture(path)[0] / FULL_SCALE).astype(np.float32)


def _provenance(
    written: Sequence[Written], settings: MergeSettings, standardiser: Standardiser
) -> Mapping[str, Any]:
    return {
        "settings": asdict(settings),
        "standardiser": standardiser.state(),
        "slices": {item.sample.image.stem: _record(item) for item in written},
    }


def _record(item: Written) -> dict[str, Any]:
    folder, original = item.source.folder, item.original
    return {
        "set": item.source.dataset.name,
        "licence": item.source.dataset.licence,
        "patient": original.patient,
        "image": _relative(original.image, folder),
        "image_sha256": _sha256(original.image),
        "mask": original.mask and _relative(original.mask, folder),
        "mask_sha256": original.mask and _sha256(original.mask),
        "slice": original.index,
        "orientation": original.orientation,
        "hu": item.is_hu,
    }


def _relative(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)


@lru_cache(maxsize=16)
def _sha256(path: Path) -> str | None:
    """The digest of a file; None for a folder (a DICOM series)."""
    if path.is_dir():
        return None
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
