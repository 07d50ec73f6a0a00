"""What inference works on: one file, a folder of files, or a data set."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from common.data.folders import files_by_stem, paired_files
from common.data.layouts import find_volumes
from common.data.samples import stem
from common.errors import UserError

PathLike = str | os.PathLike[str]


class Source(NamedTuple):
    """A condition (a label map, or an image where that is a model's condition), and the real image of it."""

    condition: Path
    real: Path | None = None


def find_sources(
    label_file: PathLike | None = None,
    input_dir: PathLike | None = None,
    dataset_dir: PathLike | None = None,
    ct_file: PathLike | None = None,
    info: Mapping[str, Any] | None = None,
) -> list[Source]:
    """The files to work on, by name. Of the first three one is given.

    Args:
        label_file: a volume, a DICOM series folder or a picture.
        input_dir: a folder of these, and of nothing else.
        dataset_dir: a data set in one of the layouts of `common.data.layouts.find_volumes`: its labels, each
            with its real image.
        ct_file: the real image of ``label_file``, to compare with.
        info: what stands beside the model: where its condition is an image, ``dataset_dir`` stands for the
            images in the folder that it was trained on.
    Raises:
        UserError: none or several are given, nothing is found, or two results would have one name.
    """
    given = {"label_file": label_file, "input_dir": input_dir, "dataset_dir": dataset_dir}
    names = [f"--{name}" for name, value in given.items() if value is not None]
    if len(names) != 1:
        raise UserError(
            f"inference works on one of --label_file, --input_dir and --dataset_dir; "
            f"{' and '.join(names) if names else 'none'} was given"
        )
    if ct_file is not None and label_file is None:
        raise UserError("--ct_file is the real image of one label file; give it with --label_file")
    if label_file is not None:
        return [Source(_existing(label_file), None if ct_file is None else _existing(ct_file))]
    if dataset_dir is not None:
        return _apart(_in_data_set(Path(dataset_dir), info or {}))
    return _in_folder(Path(str(input_dir)))


def _in_data_set(folder: Path, info: Mapping[str, Any]) -> list[Source]:
    if info.get("condition") == "image":
        pairs = paired_files(folder, folder / info["condition_dir"], info["image_dir"])
        return [Source(condition, image) for image, condition in pairs]
    records = find_volumes(folder)
    return [Source(record.mask, record.image) for record in records if record.mask is not None]


def _in_folder(folder: Path) -> list[Source]:
    files = files_by_stem(folder)
    if not files:
        raise UserError(f"{folder}: holds no label files; put NIfTI, MHD or PNG label maps there")
    return [Source(files[name]) for name in sorted(files)]


def _existing(path: PathLike) -> Path:
    if not Path(path).exists():
        raise UserError(f"{path}: no such file; check the path")
    return Path(path)


def _apart(sources: list[Source]) -> list[Source]:
    """The same, if all results will have names of their own."""
    known: dict[str, Path] = {}
    for source in sources:
        name = stem(source.condition)
        if name in known:
            raise UserError(
                f"{source.condition}: {known[name]} has the same name; give one of them at a time, "
                "with --label_file"
            )
        known[name] = source.condition
    return sources
