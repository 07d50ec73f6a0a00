"""Several sets become one: same masks, same range, same size, one split by patient."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from common.data.checks import read_pair
from common.data.intensity import Window, to_unit
from common.data.reading import Pixels
from common.data.resizing import resize_image, resize_mask
from common.data.samples import Sample
from common.data.sources import Source, source_samples
from common.data.splits import split_by_patient, write_splits
from common.errors import UserError
from common.files import write_json

FULL_SCALE = 65535  # 16 bits keep a lung window of 1 400 HU to 0.02 HU; 8 bits would round to 5.5 HU
PERCENTILES = (1.0, 99.0)  # black and white of magnetic resonance slices


@dataclass(frozen=True)
class Settings:
    """How slices are harmonised.

    Args:
        image_size: pixels along both sides.
        window: HU range that becomes [0, 1].
        keep_empty: keep slices where nothing is segmented.
        seed, fractions: of the split into training, validation and test patients.
    """

    image_size: int
    window: Window
    keep_empty: bool = False
    seed: int = 0
    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15)


def harmonise(
    sources: Sequence[Source], output: str | Path, settings: Settings, *, progress: bool = True
) -> dict[str, int]:
    """Writes one ``images/`` + ``masks/`` folder pair from all sources; appears whole or not at all.

    Images are 16-bit PNG (0..65535 stands for [0, 1]), masks 8-bit PNG {0, 255} by nearest neighbour, both
    named ``PATIENT_NUMBER.png``, so that the layout ``image_mask_folders`` finds the patients.
    ``splits.json`` splits by patient, also where two sets share patients; ``provenance.json`` says for each
    slice where it came from. Sets without masks give images alone.

    Returns:
        the number of slices in each split, and of those dropped for an empty mask ("empty").
    Raises:
        UserError: ``output`` exists, a source is unreadable, masked and unmasked sets are mixed.
    """
    output = Path(output)
    if output.exists():
        raise UserError(f"{output}: exists already; choose another --output or remove it")
    found = [(source, sample) for source in sources for sample in source_samples(source)]
    if len({sample.mask is None for _, sample in found}) > 1:
        raise UserError(f"{output}: sets with and without masks do not merge; prepare them apart")
    with new_folder(output) as folder:
        written, records = _write_all(found, folder, settings, progress)
        splits = split_by_patient(written, settings.fractions, settings.seed)
        write_splits(folder / "splits.json", splits)
        write_json(folder / "provenance.json", {"settings": asdict(settings), "slices": records})
    return {name: len(samples) for name, samples in splits.items()} | {"empty": len(found) - len(written)}


def harmonise_slice(
    sample: Sample, settings: Settings, modality: str = "CT"
) -> tuple[np.ndarray, np.ndarray | None]:
    """One slice as (image, mask): float32 [0, 1] and uint8 {0, 1} or None, both (image_size, image_size)."""
    size = settings.image_size
    pixels, mask = read_pair(sample)
    unit = to_unit(pixels.values, settings.window, *meaning(pixels, modality))
    image = np.clip(resize_image(unit, size, size), 0.0, 1.0)
    return image, None if mask is None else resize_mask(mask, size, size)


def meaning(pixels: Pixels, modality: str) -> tuple[bool, tuple[float, float]]:
    """Whether values are HU, else what is black and white.

    Slices of magnetic resonance are scaled between percentiles. "HU" slices without a single value below 0
    hold no air: they are 8-bit grey values in a wider type (the Radiopaedia cases of COVID-19-CT-Seg are).
    """
    if modality == "MR":
        lower, upper = np.percentile(pixels.values, PERCENTILES)
        return False, (float(lower), float(max(upper, lower + 1)))
    if pixels.is_hu and pixels.values.min() >= 0 and pixels.values.max() <= 255:
        return False, (0.0, 255.0)
    return pixels.is_hu, pixels.source_range


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A temporary sibling that becomes ``folder`` when the block ends well, and is removed on any error."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        yield temporary
        temporary.chmod(0o755)
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_all(
    found: Sequence[tuple[Source, Sample]], folder: Path, settings: Settings, progress: bool
) -> tuple[list[Sample], dict[str, dict[str, Any]]]:
    written: list[Sample] = []
    records: dict[str, dict[str, Any]] = {}
    numbers: Counter[str] = Counter()
    for source, sample in tqdm(found, desc="harmonise", unit="slice", disable=None if progress else True):
        image, mask = harmonise_slice(sample, settings, source.dataset.modality)
        if mask is not None and not mask.any() and not settings.keep_empty:
            continue
        patient = re.sub(r"[^A-Za-z0-9.-]+", "-", sample.patient)
        name = f"{patient}_{numbers[patient]:04d}"
        numbers[patient] += 1
        image_file = _save(np.rint(image * FULL_SCALE).astype(np.uint16), folder / "images" / f"{name}.png")
        mask_file = None if mask is None else _save(mask * np.uint8(255), folder / "masks" / f"{name}.png")
        written.append(Sample(image_file, mask_file, patient, group=sample.group))
        records[name] = _record(source, sample)
    if not written:
        raise UserError(f"{found[0][0].folder}: every mask is empty; see --keep_empty and --foreground")
    return written, records


def _save(array: np.ndarray, path: Path) -> Path:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(array).save(path)
    return path


def _record(source: Source, sample: Sample) -> dict[str, Any]:
    return {
        "set": source.dataset.name,
        "patient": sample.patient,
        "image": _relative(sample.image, source.folder),
        "image_sha256": _sha256(sample.image),
        "mask": sample.mask and _relative(sample.mask, source.folder),
        "mask_sha256": sample.mask and _sha256(sample.mask),
        "slice": sample.index,
        "orientation": sample.orientation,
    }


def _relative(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)


@lru_cache(maxsize=16)
def _sha256(path: Path) -> str | None:
    """Digest of a file; None for a folder (a DICOM series)."""
    if path.is_dir():
        return None
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
