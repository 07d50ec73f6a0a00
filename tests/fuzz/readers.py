"""What each part of the project makes of a folder: the arrays that the networks or the reports see.

`TARGETS` names them. Each reads a set in process and gives its slices as `Slice`, square and in HU.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from monai.bundle import ConfigParser

from bundles.lung_two_stage.extraction.slices import find_healthy_slices, read_healthy_scans
from common.data.image_io import read_pixels
from common.data.intensity import Window
from common.data.samples import Sample
from common.data.transforms import FitSquared
from common.data.volume_io import open_volume
from common.inference.datasets import LabelSlices, MaskSlices, find_sources
from common.trust.image_sets import read_set
from common.trust.readers import IMAGES, PAIRS, STRUCTURES, ReadingSettings
from scripts import prepare_data, trust_report
from tests.fuzz.inputs import LOWER, SIZE, UPPER, Files
from tests.made_files import config_files

WINDOW = [LOWER, UPPER]
FIXED = {"augment": "none", "fit": "pad", "window": WINDOW, "image_size": SIZE, "standardise": "none"}


@dataclass(frozen=True)
class Slice:
    """What was read of a slice.

    Attributes:
        hu: float (S, S), or None where labels alone are read.
        label: (S, S), or None without.
        patient, part: whose it is, and in which split.
        away: how far its volume lies from its place, in voxels.
    """

    hu: np.ndarray | None
    label: np.ndarray | None
    patient: str = ""
    part: str = ""
    away: float = 0.0


def unwindowed(network: Any) -> np.ndarray:
    """[-1, 1] (1, S, S) back to HU."""
    return (np.asarray(network, np.float64)[0] + 1) / 2 * (UPPER - LOWER) + LOWER


def square(plane: np.ndarray, fill: float) -> np.ndarray:
    """A plane in the middle of a square, as ``pad`` has it; larger ones as they are."""
    if max(plane.shape) > SIZE:
        return plane
    result = np.full((SIZE, SIZE), fill, np.float64)
    top, left = ((SIZE - side) // 2 for side in plane.shape)
    result[top : top + plane.shape[0], left : left + plane.shape[1]] = plane
    return result


@cache
def parsed(bundle: str, name: str) -> ConfigParser:
    """A bundle's config, read once."""
    parser = ConfigParser()
    parser.read_config(config_files(bundle, [name]))
    return parser


def data_of(bundle: str, name: str, **settings: Any) -> Any:
    """The data module that a training config sets up."""
    parser = ConfigParser(copy.deepcopy(parsed(bundle, name).get()))
    for key, value in settings.items():
        parser[key.replace("__", "#")] = value
    return parser.get_parsed_content("data")


def trained_on(data: Any) -> Iterator[Slice]:
    """The items of all splits."""
    for part, dataset in data.datasets.items():
        for index, sample in enumerate(dataset.samples):
            item = dataset[index]
            label = np.asarray(item["label"])[0] if "label" in item else None
            yield Slice(unwindowed(item["image"]), label, sample.unit, part)


def pix2pix(files: Files, work: Path) -> Iterator[Slice]:
    return trained_on(
        data_of("pix2pix_covid", "train", dataset_dir=str(files.root), empty_masks="keep", **FIXED)
    )


def dcgan(files: Files, work: Path) -> Iterator[Slice]:
    return trained_on(data_of("dcgan_covid", "train", dataset_dir=str(files.root), classes="all", **FIXED))


def patchgan(files: Files, work: Path) -> Iterator[Slice]:
    settings = {**FIXED, "min_pixels": 0, "coarse_labels": 0.0, "store_dir": str(work / "store")}
    return trained_on(data_of("patchgan_cardiac", "train", dataset_dir=str(files.root), **settings))


def scans(found: Iterable[Any], part: str = "") -> Iterator[Slice]:
    """The slices of whole scans of the two-stage bundle."""
    for scan in found:
        for hu, mask in zip(scan.hu, scan.mask, strict=True):
            yield Slice(square(hu, LOWER), square(mask, 0), scan.patient, part)


def nodules(files: Files, work: Path) -> Iterator[Slice]:
    data = data_of("lung_two_stage", "extract", dataset_dir=str(files.root), window=WINDOW)
    for part in data.splits:
        yield from scans(data.scans(part), part)


def patches(files: Files, work: Path) -> Iterator[Slice]:
    """Segmentation's patches are as large as a slice here."""
    data = data_of(
        "lung_two_stage", "train_segmentation", dataset_dir=str(files.root), window=WINDOW, image_size=16
    )
    assert all(len(part) for part in data.datasets.values())
    return nodules(files, work)


def healthy(files: Files, work: Path) -> Iterator[Slice]:
    split = find_healthy_slices(files.root, (0.7, 0.15, 0.15), 0, 0.3, 0)
    for part, samples in vars(split).items():
        for slice_ in scans(read_healthy_scans(samples, Window(*WINDOW)), part):
            yield Slice(slice_.hu, None, slice_.patient, part)


def prepare(files: Files, work: Path) -> Iterator[Slice]:
    """The written pictures, read back by the bundle that they are made for."""
    output = work / "prepared"
    words = ["mosmed", "--root", str(files.root), "--output", str(output), "--image_size", str(SIZE)]
    prepare_data.main([*words, "--window", *map(str, WINDOW), "--keep_empty", "--foreground", "1", "2", "3"])
    return pix2pix(Files(output, files.scans), work)


def settings(kind: str) -> ReadingSettings:
    """Of the trust report, with the window of the truths."""
    facts = {
        "image_size": SIZE,
        "fit": "pad",
        "intensity": {"kind": "window", "lower": LOWER, "upper": UPPER},
    }
    return ReadingSettings(SIZE, Window(*WINDOW), "pad", kind=kind, empty_labels=True, info=facts)


def trust(kind: str) -> Callable[[Files, Path], Iterator[Slice]]:
    """The report's sets of one kind."""

    def read(files: Files, work: Path) -> Iterator[Slice]:
        found = read_set(files.root, settings(kind))
        labels = [None] * len(found) if found.labels is None else list(found.labels)
        for image, label, patient in zip(found.images, labels, found.patients, strict=True):
            yield Slice(unwindowed(image), None if label is None else np.asarray(label)[0], patient)

    return read


def report(files: Files, work: Path) -> Iterator[Slice]:
    """The whole command on the set and two clean ones; nothing half-written is left of it."""
    words = ["--real", files.root, "--heldout", work / "clean1", "--synthetic", work / "clean2", "--output"]
    more = [
        "--sections",
        "fidelity",
        "--resamples",
        "2",
        "--image_size",
        SIZE,
        "--window",
        *WINDOW,
        "--device",
        "cpu",
    ]
    trust_report.main([str(word) for word in (*words, work / "report" / "page.html", *more)])
    return trust(PAIRS)(files, work)


def masks(files: Files, work: Path) -> Iterator[Slice]:
    folder = next(folder for folder in (files.root / "masks", files.root / "labels") if folder.is_dir())
    for label in MaskSlices(folder, FitSquared("label", SIZE, mode="nearest")).labels:
        yield Slice(None, np.asarray(label)[0])


def labels(files: Files, work: Path) -> Iterator[Slice]:
    facts = {
        "image_size": SIZE,
        "fit": "pad",
        "intensity": {"kind": "window", "lower": LOWER, "upper": UPPER},
    }
    dataset = LabelSlices(find_sources(dataset_dir=files.root, info=facts), facts)
    for index in range(len(dataset)):
        yield Slice(None, np.asarray(dataset[index]["label"])[0])


def places(files: Files, work: Path) -> Iterator[Slice]:
    """Volumes as the readers of all bundles see them; their corners must lie where the truth has them."""
    for name, paths in files.images.items():
        for path in paths:
            volume = open_volume(path)
            corners = np.array([[0, 0, 0, 1], [*np.subtract(volume.array.shape, 1), 1]])
            truth = corners[:, [1, 0, 2, 3]] @ files.scans[name].affine.T  # columns, rows, slices
            away = np.abs((corners @ volume.display_affine.T - truth)[:, :3] / [0.8, 0.8, 2.5]).max()
            for z in range(volume.depth):
                plane, is_hu, (low, high) = read_pixels(Sample(path, None, name, z))
                if not is_hu:
                    plane = (plane - low) / (high - low) * (UPPER - LOWER) + LOWER
                yield Slice(square(plane, LOWER), None, name, away=float(away))


@dataclass(frozen=True)
class Target:
    """A reader.

    Attributes:
        read: of a set, with a folder for what it writes.
        layouts: keys of `inputs.LAYOUTS`.
        formats: keys of `inputs.FORMATS`.
        labels: what it makes of a label: ``binary``, ``classes``, or None.
        split: whether each slice has a part that no patient may be in twice.
        whole: whether it reads all patients.
    """

    read: Callable[[Files, Path], Iterable[Slice]]
    layouts: tuple[str, ...]
    formats: tuple[str, ...]
    labels: str | None = "binary"
    split: bool = False
    whole: bool = True


VOLUMES = ("nifti", "nifti", "mhd", "mha", "nrrd", "pair")
ANY = (*VOLUMES, "dicom", "dicom", "png", "tiff", "flat")
FOLDERS, BESIDE = ("folders", "folders", "labels"), ("folders", "beside", "cases")
ALONE = ("flat", "patients")
TARGETS = {
    "pix2pix": Target(pix2pix, BESIDE, ANY, split=True),
    "patchgan": Target(patchgan, (*BESIDE, "labels"), ANY, "classes", split=True),
    "dcgan": Target(dcgan, ALONE, ANY, None, split=True),
    "nodules": Target(nodules, FOLDERS, ANY, split=True),
    "patches": Target(patches, FOLDERS, ANY, split=True),
    "healthy": Target(healthy, ALONE, ANY, None, whole=False),
    "prepare_data": Target(prepare, FOLDERS, ANY, split=True),
    "trust pairs": Target(trust(PAIRS), BESIDE, ANY),
    "trust images": Target(trust(IMAGES), ALONE, (*ANY, "npy", "npy"), None),
    "trust structures": Target(trust(STRUCTURES), BESIDE, ANY, "classes"),
    "trust_report": Target(report, FOLDERS, ("nifti", "png", "dicom")),
    "masks": Target(masks, FOLDERS, ANY),
    "labels": Target(labels, ("folders", "labels", "beside"), ANY, "classes"),
    "places": Target(places, ALONE, (*VOLUMES, "dicom", "dicom"), None),
}
