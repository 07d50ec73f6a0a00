"""Copies the synthetic images that the gate does not flag, with a list of those left out and why."""

from __future__ import annotations

import os
import shutil
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from common.data.layouts import MASK_FOLDERS
from common.data.samples import stem
from common.data.volume_io import source_parts
from common.errors import UserError
from common.files import replaced_folder, visible_files, write_json
from common.trust.gate import Gate
from common.trust.image_files import IMAGE_FOLDER
from common.trust.image_sets import ImageSet, Sets
from common.trust.readers import SHARD_SUFFIX as SHARD
from common.trust.readers import SUFFIX as ARRAY
from common.trust.readers import shard_samples

MANIFEST = "released.json"


def release(sets: Sets, gate: Gate, output_dir: str | os.PathLike[str]) -> int:
    """Writes the images that the gate did not flag to a folder, atomically.

    Files are copied unchanged, with their labels and provenance JSON. Images that share a file are written
    one by one: a sample of a shard as its files, an image of a NumPy stack as ``.npy``. A volume stays whole,
    so one flagged slice leaves all of it out. ``released.json`` lists the released images, and those left out
    with their nearest training image and its similarity.

    Args:
        sets: as they were read; names are those of files in ``sets.synthetic.folder``.
        gate: of these sets.
        output_dir: absent, empty, or that of an earlier release.
    Returns:
        How many images were written.
    Raises:
        UserError: the folder holds other things, the disk is full, all images are flagged, or see
            `check_list_name`.

    Example:
        >>> import tempfile, torch
        >>> with tempfile.TemporaryDirectory() as place:
        ...     names = ["a.npy", "b.npy"]
        ...     for name in names:
        ...         np.save(f"{place}/{name}", np.zeros((8, 8), np.int16))
        ...     images = ImageSet(torch.zeros(2, 1, 8, 8), names, names, folder=place)
        ...     gate = Gate("closed", 0.9, [1], "b is a copy", [0.2, 0.95], [0, 0], [0.1, 2.0])  # flags b.npy
        ...     count = release(Sets(images, images, images), gate, f"{place}/cleared")
        ...     count, sorted(path.name for path in Path(place, "cleared").iterdir())
        (1, ['a.npy', 'released.json'])
    """
    source, kept = Path(sets.synthetic.folder), unflagged(sets, gate)
    if not kept:
        raise UserError(
            f"{source}: all {len(sets.synthetic)} images are near to training images; nothing was written"
        )
    check_list_name(sets.synthetic)
    parts: dict[str, list[str]] = defaultdict(list)  # to release, of each file
    for name in kept:
        parts[_file(name)].append(name.partition("#")[2])
    with replaced_folder(output_dir, MANIFEST) as folder:
        for file, part in parts.items():
            _write(source, file, part, folder)
        write_json(folder / MANIFEST, _manifest(sets, gate, set(kept)))
    return len(kept)


def check_release_folder(folder: Path | None) -> None:
    """Checks, before anything is measured, that the folder for released images holds no other files.

    Raises:
        UserError: it does.
    """
    if folder is None or not folder.exists():
        return
    if not folder.is_dir() or (any(folder.iterdir()) and not (folder / MANIFEST).is_file()):
        raise UserError(f"{folder}: holds other files; give --release a new folder")


def check_list_name(synthetic: ImageSet) -> None:
    """Checks that no image's provenance JSON has the name of the list of released images.

    Raises:
        UserError: one is.
    """
    source = Path(synthetic.folder)
    for file in map(_file, synthetic.names):
        if not _divisible(file) and source / MANIFEST in _record(source / file):
            raise UserError(
                f"{source / file}: its {MANIFEST} is called as the list of what is released; rename both"
            )


def unflagged(sets: Sets, gate: Gate) -> list[str]:
    """Lists the names of all synthetic images except flagged ones and other slices of their volumes."""
    names = sets.synthetic.names
    flagged = {names[index] for index in gate.flagged}
    lost = {_file(name) for name in flagged if not _divisible(_file(name))}
    return [name for name in names if name not in flagged and _file(name) not in lost]


def _write(source: Path, file: str, parts: Sequence[str], folder: Path) -> None:
    inner, keys = folder / PurePosixPath(file).with_suffix(""), set(parts)
    if file.endswith(SHARD):
        inner.mkdir(parents=True)
        for key, files in shard_samples(source / file):
            for suffix, content in files.items() if key in keys else ():
                (inner / f"{key}.{suffix}").write_bytes(content)
    elif file.endswith(ARRAY) and any(parts):
        inner.mkdir(parents=True)
        array = np.load(source / file, mmap_mode="r", allow_pickle=False)
        for index in parts:
            np.save(inner / f"{index}{ARRAY}", array[int(index)])
    else:
        for path in (*source_parts(source / file), *_record(source / file), *_labels(source, file)):
            target = folder / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


def _labels(source: Path, file: str) -> list[Path]:
    """The label of an image in ``images/``, where the folder has one of equal name."""
    first, *rest = PurePosixPath(file).parts
    if first != IMAGE_FOLDER or not rest:
        return []
    name = stem(Path(file))
    places = [source / place for place in MASK_FOLDERS if (source / place).is_dir()]
    return [path for place in places for path in visible_files(place) if stem(path) == name]


def _record(image: Path) -> list[Path]:
    """The provenance JSON next to an image, if any, see `common.provenance`."""
    path = image.with_name(f"{stem(image)}.json")
    return [path] if path.is_file() else []


def _manifest(sets: Sets, gate: Gate, kept: set[str]) -> dict[str, object]:
    rows = [
        {
            "image": name,
            "nearest": sets.real.names[gate.nearest[index]],
            "similarity": round(gate.similarities[index], 4),
            "score": round(gate.scores[index], 2) if gate.scores else None,
            "why": "too similar" if index in gate.flagged else "another slice of its volume is",
        }
        for index, name in enumerate(sets.synthetic.names)
        if name not in kept
    ]
    return {
        "similarity": "correlation with the nearest training image, moved as it fits best",
        "score": "how much nearer than usual the nearest patient is, see common.trust.near_copies",
        "threshold": gate.threshold,
        "calibrated": gate.calibrated,
        "gate": gate.verdict,
        "released": [name for name in sets.synthetic.names if name in kept],
        "left_out": rows,
    }


def _file(name: str) -> str:
    return name.partition("#")[0]


def _divisible(file: str) -> bool:
    return file.endswith((SHARD, ARRAY))
