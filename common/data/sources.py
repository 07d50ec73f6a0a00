"""From a registry entry and its unpacked folder to samples: pairs, patients, and what mask values mean."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from common.data.layouts import expand, find_samples
from common.data.patients import patient_of
from common.data.registry import Dataset, PairRule
from common.data.samples import Sample
from common.errors import UserError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """One set on disk.

    Args:
        dataset: its registry entry (layout, mask convention, patient rules).
        folder: where it was unpacked.
        foreground: mask values that become 1, instead of the entry's own.
        patient_pattern: what tells the patients instead of the entry's rules, see
            `common.data.patients.whose`.
    """

    dataset: Dataset
    folder: Path
    foreground: tuple[int, ...] | None = None
    patient_pattern: str | None = None


def fits(dataset: Dataset, folder: Path) -> bool:
    """Whether ``folder`` looks like the set: at least one image where the layout expects it."""
    if not folder.is_dir():
        return False
    if dataset.pairs and next(_files(folder, dataset.pairs.images), None) is not None:
        return True
    return any((folder / name).is_dir() for name in _folders_of(dataset))


def source_samples(source: Source) -> list[Sample]:
    """The set's slices, sorted, with the registry's mask convention and patient ids that hold across sets.

    Raises:
        UserError: no images, an image without mask, or an ambiguous pair; names folder and file.
    """
    dataset, folder = source.dataset, source.folder
    if dataset.pairs and next(_files(folder, dataset.pairs.images), None) is not None:
        samples = list(_paired(source, dataset.pairs))
    elif fits(dataset, folder):
        layout = "auto" if dataset.pairs else dataset.adapter
        samples = find_samples(folder, layout, source.patient_pattern)
    else:
        raise UserError(f"{folder}: does not look like {dataset.name}; expected {dataset.expect}")
    samples = [_with_convention(sample, source) for sample in samples]
    if source.patient_pattern is not None:
        named = ((s, f"{dataset.name}-{patient_of(s.image, source.patient_pattern)}") for s in samples)
        return [replace(sample, patient=patient, person="") for sample, patient in named]
    return [replace(sample, patient=shared_patient(sample, dataset, folder), person="") for sample in samples]


def shared_patient(sample: Sample, dataset: Dataset, folder: Path) -> str:
    """The patient's id across sets: by the entry's rules, else prefixed with the set's name.

    The public COVID sets use each other's cases (the pseudo slices of COVID-SemiSeg are those of
    COVID-19-CT-Seg), so merging them by their own ids would put one patient into two splits.
    """
    path = _relative(sample.image, folder)
    for pattern, identity in dataset.shared_patients:
        if match := re.search(pattern, path):
            return identity.format(*match.groups())
    return f"{dataset.name}-{sample.unit}"


def _paired(source: Source, rule: PairRule) -> Iterator[Sample]:
    """Pairs images and masks by key and spreads volumes into slices."""
    masks = _by_key(source, rule, rule.masks) if rule.masks else {}
    images = _by_key(source, rule, rule.images)
    # A set's images outnumber its masks where only a part was segmented: the rest is left out.
    keys = images.keys() & masks.keys() if rule.masks else images.keys()
    if left_out := len(images) - len(keys):
        logger.warning("%s: %d of %d images have no mask: left out", source.folder, left_out, len(images))
    if not keys:
        raise UserError(f"{source.folder}: images without masks; expected {source.dataset.expect}")
    for key in sorted(keys):
        image = images[key]
        patient = _groups(rule.patient, _relative(image, source.folder)) if rule.patient else None
        sample = Sample(image, masks.get(key), patient or key, orientation=rule.orientation)
        yield from _slices(sample, rule)


def _slices(sample: Sample, rule: PairRule) -> Iterator[Sample]:
    for part in expand(sample):
        apart = rule.slices_are_patients and part.index is not None
        yield replace(part, patient=f"{part.patient}-z{part.index:03d}") if apart else part


def _with_convention(sample: Sample, source: Source) -> Sample:
    """The entry's mask values, unless the layout knows better (soft masks), or the user's own choice."""
    mask = source.dataset.mask
    foreground = source.foreground or mask.foreground
    if sample.mask is None or (sample.mask_threshold is not None and source.foreground is None):
        return sample
    if mask.threshold is not None and source.foreground is None:
        return replace(sample, mask_threshold=mask.threshold)
    if foreground is None:
        return sample
    background = (0, *mask.values, *mask.ignored)
    return replace(sample, mask_values=foreground, mask_background=background, mask_threshold=None)


def _by_key(source: Source, rule: PairRule, pattern: str | None) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(_files(source.folder, pattern or "")):
        key = _groups(rule.key, _relative(path, source.folder))
        if key is None:
            continue
        if key in found:
            raise UserError(f"{path}: is the same case as {found[key]}; keep one copy of the set")
        found[key] = path
    return found


def _groups(pattern: str, path: str) -> str | None:
    match = re.search(pattern, path)
    return "_".join(match.groups()) if match else None


def _files(folder: Path, pattern: str) -> Iterator[Path]:
    """Matches of a glob, without hidden files (macOS leaves ``._NAME`` beside each file)."""
    found = (path for path in folder.glob(pattern) if path.is_file())
    return (path for path in found if not _hidden(path.relative_to(folder).parts))


def _hidden(parts: Iterable[str]) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in parts)


def _relative(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name


def _folders_of(dataset: Dataset) -> tuple[str, ...]:
    return ("doctor", "pseudo") if dataset.adapter == "covid_lesions" else ("images",)
