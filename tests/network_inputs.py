"""What each config makes of the made files, and of some real ones.

`CASES` names, for each config, an expression whose value is a dataset; `items` reads it without random
augmentation. ``tests/data/network_inputs.npz`` holds what the networks saw when it was written, and summaries
of what they saw of real files (`REAL`)::

    python -m tests.network_inputs      # writes it anew: only where what the networks see is meant to change
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from monai.bundle import ConfigParser

from tests.conftest import SHARED_DATA
from tests.made_files import ROOT, SIZE, config_files, make_files

STORED = ROOT / "tests" / "data" / "network_inputs.npz"
STEPS = 1000
"""Stored images are rounded to 1 / STEPS; stored whole numbers are exact."""


@dataclass(frozen=True)
class Case:
    """A dataset as a config sets it up.

    Args:
        bundle: under ``bundles/``.
        configs: names of the YAML files.
        what: a config expression whose value is the dataset.
        settings: overrides; ``{files}`` in a text is the folder of the made files.
        keys: entries of the items that are stored.
        most: so many items at most, spread over the dataset.
    """

    bundle: str
    configs: Sequence[str]
    what: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    keys: Sequence[str] = ("image", "label")
    most: int = 8


PIX2PIX, PATCHGAN, DCGAN, LUNG = "pix2pix_covid", "patchgan_cardiac", "dcgan_covid", "lung_two_stage"
# What the recipes may set otherwise tomorrow is set here.
PAIRS = {
    "dataset_dir": "{files}/pairs",
    "image_size": SIZE,
    "augment": "none",
    "fit": "pad",
    "window": "lung",
    "standardise": "none",
    "empty_masks": "drop",
}
HEARTS = {
    "dataset_dir": "{files}/hearts",
    "store_dir": "{files}/store",
    "image_size": SIZE,
    "augment": "none",
    "fit": "pad",
    "axis": "axial",
    "window": "angiography",
    "min_pixels": 1,
    "every": 1,
}
CLASSES = {
    "dataset_dir": "{files}/classes",
    "image_size": SIZE,
    "classes": "all",
    "augment": "none",
    "fit": "pad",
    "window": "lung",
    "standardise": "none",
    "flips": False,
}
SCANS = {"dataset_dir": "{files}/work/scans", "image_size": SIZE, "window": "lung"}
MODEL = "{files}/models/"
WORK = {"work_dir": "{files}/work", "image_size": 16, "window": "lung"}
TRAIN, VAL = "$@train#dataset", "$@validate#dataset"
CASES = {
    "pairs_train": Case(PIX2PIX, ["train"], TRAIN, PAIRS, most=12),
    "pairs_val": Case(PIX2PIX, ["train"], VAL, PAIRS),
    "pairs_crop": Case(
        PIX2PIX, ["train"], TRAIN, {**PAIRS, "fit": "crop", "window": "mediastinum", "empty_masks": "keep"}
    ),
    "pairs_landmarks": Case(
        PIX2PIX, ["train"], TRAIN, {**PAIRS, "fit": "stretch", "standardise": "landmarks"}, most=5
    ),
    "pairs_histogram": Case(PIX2PIX, ["train"], TRAIN, {**PAIRS, "standardise": "histogram"}, most=4),
    "pairs_offset": Case(
        PIX2PIX, ["train"], TRAIN, {**PAIRS, "dataset_dir": "{files}/offset", "hu_offset": -1024}
    ),
    "pairs_covid": Case(PIX2PIX, ["train"], "$@data", {**PAIRS, "dataset_dir": "{files}/covid"}),
    "pairs_evaluate": Case(
        PIX2PIX,
        ["evaluate"],
        "$@dataset",
        {"dataset_dir": "{files}/pairs", "ckpt_path": MODEL + "pix2pix_covid/model.pt"},
    ),
    "pairs_inference": Case(
        PIX2PIX,
        ["inference"],
        "$@dataset",
        {"input_dir": "{files}/pairs/masks", "ckpt_path": MODEL + "pix2pix_covid/model.pt"},
    ),
    "covid_inference": Case(
        PIX2PIX,
        ["inference"],
        "$@dataset",
        {
            "input_dir": "{files}/covid/pseudo/masks",
            "mask_threshold": 100,
            "ckpt_path": MODEL + "none/model.pt",
        },
        most=4,
    ),
    "hearts_train": Case(PATCHGAN, ["train"], TRAIN, HEARTS, most=12),
    "hearts_val": Case(PATCHGAN, ["train"], VAL, {**HEARTS, "labels": "LV,Myo", "min_pixels": 0}),
    "hearts_coronal": Case(
        PATCHGAN, ["train"], TRAIN, {**HEARTS, "axis": "coronal", "spacing": 1.3, "every": 4}
    ),
    "hearts_sagittal": Case(
        PATCHGAN,
        ["train"],
        TRAIN,
        {**HEARTS, "axis": "sagittal", "fit": "crop", "labels": "whole_heart", "every": 6},
    ),
    "hearts_pictures": Case(PATCHGAN, ["train"], TRAIN, {**HEARTS, "dataset_dir": "{files}/heart_pictures"}),
    "hearts_mr": Case(PATCHGAN, ["train", "mr"], TRAIN, {**HEARTS, "dataset_dir": "{files}/mr"}),
    "hearts_contrast": Case(
        PATCHGAN, ["train", "contrast"], TRAIN, {**HEARTS, "dataset_dir": "{files}/contrasts"}, most=2
    ),
    "hearts_evaluate": Case(
        PATCHGAN,
        ["evaluate"],
        "$@dataset",
        {
            "dataset_dir": "{files}/hearts",
            "store_dir": "{files}/store",
            "ckpt_path": MODEL + "patchgan_cardiac/model.pt",
        },
    ),
    "hearts_inference": Case(
        PATCHGAN,
        ["inference"],
        "$@dataset",
        {"input_dir": "{files}/hearts/labels", "ckpt_path": MODEL + "patchgan_cardiac/model.pt"},
    ),
    "classes_train": Case(DCGAN, ["train"], TRAIN, CLASSES, ("image", "class")),
    "classes_val": Case(DCGAN, ["train"], VAL, {**CLASSES, "fit": "crop", "flips": True}, ("image", "class")),
    "classes_landmarks": Case(
        DCGAN,
        ["train"],
        TRAIN,
        {**CLASSES, "standardise": "landmarks", "window": "lung_wide", "fit": "stretch"},
        ("image", "class"),
        5,
    ),
    "classes_evaluate": Case(
        DCGAN,
        ["evaluate"],
        "$@data.test",
        {"dataset_dir": "{files}/classes", "ckpt_path": MODEL + "dcgan_covid/model.pt"},
        ("image", "class"),
    ),
    "segmentation_train": Case(LUNG, ["train_segmentation"], TRAIN, SCANS, most=6),
    "segmentation_luna": Case(LUNG, ["train_segmentation"], VAL, {**SCANS, "dataset_dir": "{files}/luna"}),
    "segmentation_crops": Case(
        LUNG, ["train_segmentation"], TRAIN, {**SCANS, "dataset_dir": "{files}/crops", "image_size": 48}
    ),
    "cubes": Case(LUNG, ["train_segmentation", "cnn_vgg"], VAL, {**SCANS, "image_size": 16}, most=6),
    "cubes_3d": Case(
        LUNG,
        ["train_segmentation", "cnn_vgg"],
        VAL,
        {**SCANS, "image_size": 8, "depth": 3, "step_mm": 10.0},
        most=3,
    ),
    "nodules_train": Case(LUNG, ["train_nodules"], TRAIN, WORK, ("image", "class"), 6),
    "normals_train": Case(
        LUNG,
        ["train_nodules", "train_healthy_slices"],
        TRAIN,
        {**WORK, "image_size": SIZE},
        ("image", "class"),
        4,
    ),
    "classifier_val": Case(LUNG, ["train_classifier"], VAL, WORK, ("image", "class"), 4),
    "enhancer_train": Case(
        LUNG, ["train_enhancer"], TRAIN, {"work_dir": "{files}/work"}, ("image", "label", "mask"), 3
    ),
    "diagnosis_train": Case(
        LUNG,
        ["train_diagnosis"],
        TRAIN,
        {
            "work_dir": "{files}/work",
            "synthetic_dir": "{files}/work/composites",
            "bases_dir": "{files}/work/extraction/healthy_slices",
            "enhancer_path": None,
            "positives": 3,
            "synthetic": 4,
        },
        ("image", "class"),
        5,
    ),
}


@dataclass(frozen=True)
class RealCase:
    """A few files of one set of the shared data.

    Args:
        folder: of the set; empty for files of several sets in one folder.
        patterns: which files are taken.
        case: what is made of them; ``{files}`` is a folder with these files alone.
    """

    folder: str
    patterns: Sequence[str]
    case: Case


def real_case(folder: str, patterns: Sequence[str], bundle: str, *configs: str, **settings: Any) -> RealCase:
    """All splits of some files, by a training config."""
    pinned = {PIX2PIX: PAIRS, PATCHGAN: HEARTS, DCGAN: CLASSES, LUNG: SCANS}[bundle]
    given = {**pinned, "dataset_dir": "{files}", **settings}
    if bundle == PATCHGAN:
        given["store_dir"] = "{files}/../store"
    keys = ("image", "class" if bundle == DCGAN else "label")
    return RealCase(folder, patterns, Case(bundle, configs or ["train"], "$@data", given, keys))


REAL = {
    "covid_lesions": real_case(
        "covid_lesions",
        ["pseudo/*/Data-1_coronacases_org_00[1-3]_1?.*", "pseudo/*/*-1[04]_*_1?.*", "doctor/[im]*/[12].*"],
        PIX2PIX,
        standardise="landmarks",
    ),
    "cardiac_chd": real_case("cardiac_chd", ["*/*_1[12]?.png"], PATCHGAN),
    "acdc": real_case("acdc", ["patient00[1-3]_frame01*"], PATCHGAN, "train", "mr"),
    "covid_ct": real_case("covid_ct", ["covid/2020.02.1?.*_1.png", "noncovid/1?.*"], DCGAN, classes="all"),
    "lung_slices_hu": real_case("lung_slices_hu", ["TCGA-??-[67]*"], DCGAN, fit="stretch"),
    "chest_volumes_hu": real_case("chest_volumes_hu", ["Lung_Dx-*", "covidctmd_P001*"], DCGAN),
    "luna": real_case("", ["luna/*raw", "luna/*.mhd", "chest_volumes_hu/Lung_Dx-*"], DCGAN),
    "nodule_slices": real_case("nodule_slices", ["*/LIDC-IDRI-000*"], LUNG, "train_segmentation"),
    "nodule_volumes": real_case("nodule_volumes", ["*/LIDC-IDRI-000*"], LUNG, "train_segmentation"),
}


def link_real(real: RealCase, shared_data: Path, folder: Path) -> Path:
    """The folder, with links to the case's files."""
    source = shared_data / real.folder
    for file in (file for pattern in real.patterns for file in source.glob(pattern)):
        link = folder / (file.relative_to(source) if real.folder else file.name)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(file)
    return folder


def summary(array: np.ndarray) -> np.ndarray:
    """Of whole numbers (N, ...) how often each occurs and two checksums of where; of images (N, C, H, W)
    mean, deviation, ends and centre of brightness, in the network's units.
    """
    flat = array.reshape(len(array), -1)
    if (array == np.rint(array)).all():
        highest = int(array.max())
        counts = np.stack([(flat == value).sum(axis=1) for value in range(highest + 1)], axis=1)
        places = np.stack([flat @ (np.arange(flat.shape[1]) * k % 977) for k in (1, 7)], axis=1)
        return np.concatenate([counts, places], axis=1).astype(np.int64)
    y, x = np.mgrid[-1 : 1 : array.shape[-2] * 1j, -1 : 1 : array.shape[-1] * 1j]
    moments = [(array * axis).reshape(len(array), -1).mean(axis=1) for axis in (y, x)]
    return np.stack([flat.mean(1), flat.std(1), flat.min(1), flat.max(1), *moments], axis=1)


def dataset_of(case: Case, files: Path) -> Any:
    """The case's dataset, set up by its configs."""
    parser = ConfigParser()
    parser.read_config(config_files(case.bundle, case.configs))
    for key, value in case.settings.items():
        parser[key] = value.replace("{files}", str(files)) if isinstance(value, str) else value
    parser["network_input"] = case.what
    parser.parse()
    return parser.get_parsed_content("network_input")


def parts_of(dataset: Any) -> dict[str, Any]:
    """A dataset by itself; of an object that holds several splits each one that was loaded."""
    if hasattr(dataset, "__len__"):
        return {"": dataset}
    return {f"_{name}": part for name, part in dataset.datasets.items()}


def items(case: Case, files: Path) -> dict[str, np.ndarray]:
    """What the networks see: for each split and key an array (N, ...), and the number of all items."""
    seen: dict[str, np.ndarray] = {}
    for suffix, dataset in parts_of(dataset_of(case, files)).items():
        places = np.unique(np.linspace(0, len(dataset) - 1, min(case.most, len(dataset))).round().astype(int))
        chosen = [dataset[int(place)] for place in places]
        seen[f"count{suffix}"] = np.array(len(dataset))
        for key in case.keys:
            if key in chosen[0]:
                seen[f"{key}{suffix}"] = np.stack([np.asarray(item[key]) for item in chosen])
    return seen


def packed(array: np.ndarray) -> np.ndarray:
    """Whole numbers as they are, others rounded to 1 / STEPS, in the smallest type."""
    if (array == np.rint(array)).all():
        return array.astype(np.min_scalar_type(int(array.max())) if array.min() >= 0 else np.int16)
    return np.rint(np.float64(array) * STEPS).astype(np.int16)


def main() -> None:
    """Writes what the networks see today; of real data nothing but summaries."""
    with tempfile.TemporaryDirectory() as folder:
        files = make_files(Path(folder))
        stored = {
            f"{name}/{key}": packed(array)
            for name, case in CASES.items()
            for key, array in items(case, files).items()
        }
        for name, real in REAL.items():
            if SHARED_DATA.is_dir():
                place = link_real(real, SHARED_DATA, Path(folder) / "real" / name)
                stored |= {
                    f"{name}/{key}": summary(v) for key, v in items(real.case, place).items() if v.ndim
                }
    whole = [key for key, array in stored.items() if array.dtype.kind in "ui"]
    np.savez_compressed(STORED, **stored)
    print(
        f"{STORED}: {len(stored)} arrays, {len(whole)} of them whole numbers, {STORED.stat().st_size} bytes"
    )


if __name__ == "__main__":
    main()
