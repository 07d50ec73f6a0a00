"""Small made files of every kind that the bundles read: asymmetric, and always the same.

`MAKERS` fills a folder of each kind; the first stages of the two-stage bundle are run by its own configs.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import itk
import nibabel as nib
import numpy as np
import pydicom
import torch
from monai.bundle import ConfigWorkflow
from PIL import Image
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

ROOT = Path(__file__).resolve().parent.parent
SIZE = 32
"""Side of the images that the made models were trained with."""
SPLITS = ("train", "val", "test")
DISPLAY = np.diag([-1.0, -1.0, 1.0, 1.0])
"""Affine of voxels (X, Y, Z) whose axes run to the patient's left, back and head."""


def chest(height: int, width: int, number: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """HU float (H, W) of two unlike lungs in a body with a spine; labels uint8 1 and 2 of lesions in them."""
    y, x = (
        axis / np.array(size - 1)
        for axis, size in zip(np.mgrid[:height, :width], (height, width), strict=True)
    )
    hu = np.full((height, width), -1000.0)
    hu[((x - 0.5) / 0.48) ** 2 + ((y - 0.52) / 0.42) ** 2 < 1] = 35 + 3 * number
    right = ((x - 0.27) / 0.18) ** 2 + ((y - 0.5) / 0.3) ** 2 < 1
    left = ((x - 0.72) / 0.13) ** 2 + ((y - 0.47) / 0.25) ** 2 < 1
    hu[right | left] = -860 + 4 * number
    hu[((x - 0.52) / 0.08) ** 2 + ((y - 0.86) / 0.06) ** 2 < 1] = 420
    hu += 40 * np.sin(5 * x + number) * np.cos(7 * y * y)  # smooth, and nowhere the same
    labels = np.zeros((height, width), np.uint8)
    labels[((x - 0.25) / 0.09) ** 2 + ((y - 0.35 - 0.02 * number) / 0.08) ** 2 < 1] = 1
    labels[((x - 0.7) / 0.07) ** 2 + ((y - 0.58) / 0.05) ** 2 < 1] = 2
    return np.where(labels == 1, -420.0, np.where(labels == 2, -60.0, hu)), labels


def chest_volume(shape: tuple[int, int, int], number: int) -> tuple[np.ndarray, np.ndarray]:
    """HU int16 and labels uint8 (X, Y, Z), another slice at each height, no lesion in the topmost one."""
    slices = [chest(shape[1], shape[0], number + z) for z in range(shape[2])]
    hu, labels = (np.stack([pair[part].T for pair in slices], axis=-1) for part in (0, 1))
    labels[..., -1] = 0
    return np.rint(hu).astype(np.int16), labels


def heart(shape: tuple[int, int, int], number: int = 0) -> np.ndarray:
    """Labels 0..7 uint8 (X, Y, Z) of seven unlike boxes, of which the first slice has three."""
    labels = np.zeros(shape, np.uint8)
    x, y = shape[0] / 12, shape[1] / 12
    for value in range(1, 8):
        start = 0 if value < 4 else 1
        rows = slice(int(y * (value % 4) * 2.4 + y), int(y * (value % 4) * 2.4 + 3 * y) + number % 2)
        columns = slice(int(x * (2 + value)), int(x * (4 + value) + 1))
        labels[columns, rows, start:] = value
    return labels


def save_picture(path: Path, pixels: np.ndarray, mode: str | None = None, **options: Any) -> None:
    """A PNG or JPEG of uint8 or uint16; ``mode`` converts it, or makes a palette picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(pixels)
    if mode == "P":
        picture = Image.fromarray(pixels, mode="P")
        picture.putpalette([value for shade in range(256) for value in (shade * 40 % 256, 255 - shade, 7)])
    elif mode is not None:
        picture = picture.convert(mode)
    picture.save(path, **options)


def gray(hu: np.ndarray, lower: float = -1000, upper: float = 400, white: int = 255) -> np.ndarray:
    """Whole gray values 0..``white`` of a HU window, uint8 or uint16."""
    unit = np.clip((hu - lower) / (upper - lower), 0, 1)
    return np.rint(unit * white).astype(np.uint8 if white < 256 else np.uint16)


def save_nifti(path: Path, array: np.ndarray, affine: np.ndarray = DISPLAY, slope: float = 1.0) -> None:
    """A NIfTI volume; with another ``slope`` the stored numbers are scaled."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(array, affine)
    if slope != 1.0:
        image.header.set_slope_inter(slope, 0.0)
    nib.save(image, path)


def save_meta_image(path: Path, array: np.ndarray, spacing: Sequence[float], compressed: bool) -> None:
    """A MetaImage of (X, Y, Z) voxels that run to the left, back and head (ITK's LPS)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = itk.image_from_array(np.ascontiguousarray(array.transpose(2, 1, 0)))
    image.SetSpacing(list(spacing))
    image.SetOrigin([10.0, 20.0, 30.0])
    itk.imwrite(image, str(path), compressed)


def save_series(folder: Path, hu: np.ndarray, spacing: Sequence[float]) -> None:
    """A DICOM series of (X, Y, Z) voxels, stored as HU + 1024 and written from the head down."""
    folder.mkdir(parents=True, exist_ok=True)
    study, series = (generate_uid(entropy_srcs=[folder.name, kind]) for kind in ("study", "series"))
    for z in range(hu.shape[2]):
        data = pydicom.Dataset()
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        uid = generate_uid(entropy_srcs=[folder.name, str(z)])
        data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = CTImageStorage
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = uid
        data.StudyInstanceUID, data.SeriesInstanceUID, data.Modality = study, series, "CT"
        data.PatientID, data.SeriesDate, data.InstanceNumber = folder.name, "20200101", hu.shape[2] - z
        data.ImagePositionPatient, data.ImageOrientationPatient = (
            [10, 20, 30 + spacing[2] * z],
            [1, 0, 0, 0, 1, 0],
        )
        data.PixelSpacing, data.SliceThickness = [spacing[1], spacing[0]], spacing[2]
        data.Rows, data.Columns, data.SamplesPerPixel = hu.shape[1], hu.shape[0], 1
        data.PhotometricInterpretation = "MONOCHROME2"
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 0
        data.RescaleIntercept, data.RescaleSlope = -1024, 1
        data.PixelData = (hu[:, :, z].T.astype(int) + 1024).clip(0).astype("<u2").tobytes()
        data.save_as(folder / f"z{hu.shape[2] - z:02d}.dcm", enforce_file_format=True)


def write_splits(folder: Path, patients: Sequence[str]) -> None:
    """A ``splits.json``: the last patient is for testing, the one before for validation."""
    parts = [list(patients[:-2]), [patients[-2]], [patients[-1]]]
    (folder / "splits.json").write_text(json.dumps(dict(zip(SPLITS, parts, strict=True))))


def make_pairs(folder: Path) -> None:
    """Images and lesion masks: 8, 16 bits, JPEG, RGB, 2-D and 3-D NIfTI, MetaImage, DICOM."""
    images, masks = folder / "images", folder / "masks"
    for number, (name, shape) in enumerate(
        {"p01": (44, 36), "p02": (30, 41), "p03": (39, 39), "p04": (35, 48)}.items()
    ):
        hu, labels = chest(*shape, number)
        lesion = (labels > 0).astype(np.uint8)
        if name == "p01":
            save_picture(images / "p01.png", gray(hu))
            save_picture(masks / "p01.png", lesion * 255)
        elif name == "p02":
            save_picture(images / "p02.png", gray(hu, white=65535))
            save_picture(masks / "p02.png", lesion)
        elif name == "p03":
            save_picture(images / "p03.jpg", gray(hu, -1350, 150), quality=95)
            save_picture(masks / "p03.png", lesion * 255, mode="1")
        else:
            save_picture(images / "p04.png", gray(hu, -1150, 350), mode="RGB")
            save_picture(masks / "p04.png", labels, mode="P")
    hu, labels = chest_volume((40, 31, 2), 5)
    save_nifti(images / "p05.nii.gz", hu[:, :, 0])  # 2-D, int16
    save_nifti(masks / "p05.nii.gz", labels[:, :, 0])
    turned = np.array([[0, 0, 2.5, 5], [1.2, 0, 0, 3], [0, -0.8, 0, 1], [0, 0, 0, 1.0]])  # axes A, I, R
    hu, labels = chest_volume((33, 42, 3), 8)  # (X, Y, Z) to the left, back and head
    save_nifti(
        images / "p06.nii", (hu[::-1, ::-1, ::-1].transpose(1, 2, 0) + 0.25).astype(np.float32), turned
    )
    save_nifti(masks / "p06.nii", np.ascontiguousarray(labels[::-1, ::-1, ::-1].transpose(1, 2, 0)), turned)
    hu, labels = chest_volume((37, 30, 3), 12)
    save_series(images / "p07", hu, (0.9, 0.9, 4.0))
    affine = np.diag([-0.9, -0.9, 4.0, 1.0])
    affine[:3, 3] = -10, -20, 30
    save_nifti(masks / "p07.nii.gz", labels, affine)
    hu, labels = chest_volume((45, 38, 2), 16)
    save_meta_image(images / "p08.mhd", hu, (0.7, 0.7, 3.0), compressed=True)
    save_meta_image(masks / "p08.mhd", labels, (0.7, 0.7, 3.0), compressed=False)
    write_splits(folder, [f"p{number:02d}" for number in (1, 2, 3, 5, 6, 7, 4, 8)])


def make_offset(folder: Path) -> None:
    """Volumes that hold HU + 1024, as uint16 and as scaled int16."""
    for number, name in enumerate(("q1", "q2", "q3")):
        hu, labels = chest_volume((30, 36, 2), number)
        stored = np.clip(hu.astype(int) + 1024, 0, None)
        if name == "q2":
            # Read as twice ``stored``, up to 600 HU, as real scans are; the window is white from 400.
            save_nifti(folder / "images" / f"{name}.nii.gz", np.minimum(stored, 812.0), slope=2.0)
        else:
            save_nifti(folder / "images" / f"{name}.nii.gz", stored.astype(np.uint16))
        save_nifti(folder / "masks" / f"{name}.nii.gz", labels)
    write_splits(folder, ["q1", "q2", "q3"])


def make_covid(folder: Path) -> None:
    """COVID-SemiSeg's folders: sideways slices, soft masks, more than one scan of a person."""
    names = ["coronacases_001_0", "coronacases_001_1", "radiopaedia_org_case-1_3_0", "coronacases_002_7"]
    for number, name in enumerate(names):
        hu, labels = chest(40, 46 - number, number)
        soft = np.where(labels == 1, 200, np.where(labels == 2, 127 + number % 2, 30)).astype(np.uint8)
        upright = number == 2
        turn = (lambda a: a.T) if upright else (lambda a: np.rot90(a, -1))  # what the reader is to undo
        save_picture(
            folder / "pseudo" / "images" / f"Data-1_{name}.jpg",
            np.ascontiguousarray(turn(gray(hu))),
            quality=95,
        )
        save_picture(folder / "pseudo" / "masks" / f"Data-1_{name}.png", np.ascontiguousarray(turn(soft)))
    for number in range(2):
        hu, labels = chest(38 + 2 * number, 33, 20 + 9 * number)
        place = folder / "doctor"
        save_picture(place / "images" / f"{number}.jpg", np.ascontiguousarray(gray(hu).T), quality=95)
        save_picture(
            place / "masks" / f"{number}.png", np.ascontiguousarray(((labels > 0) * 255).astype(np.uint8).T)
        )


def make_hearts(folder: Path) -> None:
    """Volumes of the heart of all kinds, their labels 1..7 or MM-WHS's values."""
    values = np.array([0, 500, 600, 420, 550, 205, 820, 850], np.uint16)
    shapes = {"h1": (40, 34, 3), "h2": (34, 44, 3), "h3": (38, 33, 3), "h4": (36, 36, 2), "h5": (41, 35, 2)}
    for number, (name, shape) in enumerate(shapes.items()):
        hu, _ = chest_volume(shape, 3 * number)
        labels = heart(shape, number)
        hu = np.where(labels > 0, 60 * labels - 100, hu).astype(np.int16)
        image, label = folder / "images", folder / "labels"
        spacing = (1.0 + 0.1 * number, 1.2, 3.0)
        affine = np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])
        if name == "h2":
            save_meta_image(image / "h2.mhd", hu, spacing, compressed=False)
            save_meta_image(label / "h2.mhd", values[labels], spacing, compressed=True)
        elif name == "h3":
            save_series(image / "h3", hu, spacing)
            affine[:3, 3] = -10, -20, 30
            save_nifti(label / "h3.nii.gz", labels, affine)
        elif name == "h4":  # stored to the right, front and head
            flipped = np.diag([spacing[0], spacing[1], spacing[2], 1.0])
            save_nifti(image / "h4.nii.gz", np.ascontiguousarray(hu[::-1, ::-1]), flipped)
            save_nifti(
                label / "h4.nii.gz",
                np.ascontiguousarray(values[labels][::-1, ::-1].astype(np.int16)),
                flipped,
            )
        else:
            save_nifti(image / f"{name}.nii.gz", hu, affine)
            save_nifti(label / f"{name}.nii.gz", labels, affine)
    write_splits(folder, list(shapes))


def make_heart_pictures(folder: Path) -> None:
    """Slices of the heart as pictures of 8 and 16 bits, their labels gray or in a palette."""
    for number, name in enumerate(("i1", "i2", "i3", "i4")):
        shape = (37 + number, 33, 2)
        labels = np.ascontiguousarray(heart(shape, number)[:, :, 1].T)
        hu = np.where(labels > 0, 60.0 * labels - 100, chest(shape[1], shape[0], number)[0])
        save_picture(folder / "images" / f"{name}.png", gray(hu, -200, 600, white=(255, 65535)[number % 2]))
        save_picture(folder / "labels" / f"{name}.png", labels, mode=("P", None)[number % 2])
    write_splits(folder, ["i1", "i2", "i3", "i4"])


def make_mr(folder: Path) -> None:
    """MR volumes without units beside their labels, as ACDC has them."""
    for number in range(1, 4):
        shape = (36, 30 + number, 2)
        hu, _ = chest_volume(shape, number)
        labels = np.minimum(heart(shape, number), 3)
        place = folder / f"patient{number:03d}_frame01"
        save_nifti(
            place.with_name(f"{place.name}.nii.gz"),
            (hu.astype(np.int32) + 1000).clip(0) * 2,
            np.diag([-1.4, -1.4, 8, 1]),
        )
        save_nifti(place.with_name(f"{place.name}_label.nii.gz"), labels, np.diag([-1.4, -1.4, 8, 1]))
    write_splits(folder, [f"patient{number:03d}" for number in range(1, 4)])


def make_contrasts(folder: Path) -> None:
    """The same volumes in two contrasts."""
    for number in range(3):
        hu, _ = chest_volume((34, 29, 2), number)
        enhanced = np.where(heart(hu.shape, number) > 0, hu + 250, hu).astype(np.int16)
        save_nifti(folder / "native" / f"c{number}.nii.gz", hu)
        save_nifti(folder / "images" / f"c{number}.nii.gz", enhanced)
    write_splits(folder, ["c0", "c1", "c2"])


def make_classes(folder: Path) -> None:
    """A folder for each class: pictures of several kinds and windows, a volume, a DICOM series."""
    covid, other = folder / "covid", folder / "noncovid"
    save_picture(covid / "k1.png", gray(chest(40, 33, 1)[0]))
    save_picture(covid / "k2.jpg", gray(chest(33, 45, 4)[0], -1350, 150), quality=95)
    save_picture(covid / "k3.png", gray(chest(36, 36, 7)[0], -1150, 350, white=65535))
    save_nifti(covid / "k4.nii.gz", chest_volume((34, 40, 2), 9)[0])
    save_picture(other / "k5.png", gray(chest(31, 43, 12)[0], -900, 500), mode="RGBA")
    save_series(other / "k6", chest_volume((36, 30, 2), 14)[0], (0.8, 0.8, 5.0))
    save_meta_image(other / "k7.mhd", chest_volume((38, 32, 2), 17)[0], (0.8, 0.8, 5.0), compressed=True)
    save_picture(other / "k8.png", gray(chest(37, 37, 19)[0]))
    write_splits(folder, ["k1", "k2", "k3", "k5", "k6", "k7", "k4", "k8"])


def scan(number: int) -> tuple[np.ndarray, np.ndarray]:
    """HU int16 and nodule labels 1 and 2 (X, Y, Z) of a scan of 48 x 44 x 6 voxels of 7 x 7 x 10 mm."""
    y, x = np.mgrid[:44, :48] * 7.0
    hu = np.full((48, 44, 6), -1000, np.int16)
    labels = np.zeros(hu.shape, np.uint8)
    for z in range(6):
        plane = np.full(y.shape, -1000.0)
        plane[((y - 154) / 110) ** 2 + ((x - 168) / 160) ** 2 <= 1] = 40
        for middle, breadth in ((95, 57), (245, 52)):
            plane[((y - 154) / 75) ** 2 + ((x - middle) / breadth) ** 2 <= 1] = -850
        hu[:, :, z] = np.rint(plane + 20 * np.sin(0.05 * x + number + z) * np.cos(0.03 * y)).T
    row, column = 18 + number % 5, 11 + number % 3
    labels[column : column + 3, row : row + 4, 3] = number % 2 + 1
    labels[column : column + 2, row : row + 3, 4] = number % 2 + 1
    return np.where(labels > 0, 20 + labels, hu).astype(np.int16), labels


def make_scans(folder: Path) -> None:
    """Ten patients with a nodule each, of two categories; some scans are MetaImages or DICOM series."""
    affine = np.diag([-7.0, -7.0, 10.0, 1.0])
    patients = [f"s{number:02d}" for number in range(10)]
    for number, patient in enumerate(patients):
        hu, labels = scan(number)
        affine[:3, 3] = (-10, -20, 30) if number == 2 else 0
        if number == 1:
            save_meta_image(folder / "images" / f"{patient}.mhd", hu, (7.0, 7.0, 10.0), compressed=True)
            save_meta_image(folder / "masks" / f"{patient}.mhd", labels, (7.0, 7.0, 10.0), compressed=False)
            continue
        if number == 2:
            save_series(folder / "images" / patient, hu, (7.0, 7.0, 10.0))
        else:
            save_nifti(folder / "images" / f"{patient}.nii.gz", hu, affine)
        save_nifti(folder / "masks" / f"{patient}.nii.gz", labels, affine)
    (folder / "categories.json").write_text('["solid", "spiculated"]')
    parts = [patients[:6], patients[6:8], patients[8:]]
    (folder / "splits.json").write_text(json.dumps(dict(zip(SPLITS, parts, strict=True))))


def make_luna(folder: Path) -> None:
    """LUNA16's layout: MetaImages of LPS voxels with their nodules in world coordinates."""
    lines = ["seriesuid,coordX,coordY,coordZ,diameter_mm"]
    for number in range(3):
        hu, labels = scan(number + 3)
        save_meta_image(folder / "subset0" / f"1.2.{number}.mhd", hu, (1.4, 1.4, 2.5), compressed=True)
        centre = np.argwhere(labels).mean(axis=0) * [1.4, 1.4, 2.5] + [10, 20, 30]
        lines.append(f"1.2.{number},{centre[0]:.4f},{centre[1]:.4f},{centre[2]:.4f},6.5")
    (folder / "annotations.csv").write_text("\n".join(lines) + "\n")
    write_splits(folder, ["1.2.0", "1.2.1", "1.2.2"])


def make_crops(folder: Path) -> None:
    """Crops of nodules as LIDC's are shared: pictures with a mask each."""
    for number, name in enumerate(("0001_nodule-1", "0001_nodule-2", "0002_nodule-1", "0003_nodule-1")):
        hu, labels = chest(44, 40, number)
        save_picture(folder / "images" / f"{name}.png", gray(hu, -1200, 600))
        save_picture(folder / "masks" / f"{name}.png", (labels == 1).astype(np.uint8) * 255)
    write_splits(folder, ["0001", "0002", "0003"])


def make_work(folder: Path) -> None:
    """What the first stages of the two-stage bundle leave: banks and composites, made by its own configs."""
    make_scans(folder / "scans")
    lung = {"work_dir": str(folder), "device": "cpu", "image_size": 48, "crop_size": 16}
    run("lung_two_stage", "extract", "extraction", dataset_dir=str(folder / "scans"), **lung)
    banks = {f"{name}_dir": str(folder / "extraction" / name) for name in ("nodules", "healthy_slices")}
    run(
        "lung_two_stage",
        "compose",
        "composition",
        work_dir=str(folder),
        groups=4,
        count=10,
        per_shard=4,
        **banks,
    )


def make_models(folder: Path) -> None:
    """What stands beside models of each bundle that were trained before this test was written."""
    look = {"method": "landmarks", "window": [-1000.0, 400.0], "ratios": [0.05, 0.55], "quantiles": None}
    splits = dict(zip(SPLITS, (["p01", "p02", "p03", "p05"], ["p04"], ["p06", "p07", "p08"]), strict=True))
    shared = {"value_range": [-1.0, 1.0], "image_size": SIZE}
    models = {
        "pix2pix_covid": {
            "window_hu": [-1000.0, 400.0],
            "nominal_hu": True,
            "fit": "crop",
            "empty_masks": "keep",
            "standardiser": look,
            "split": {"rule": "splits.json"},
        },
        "patchgan_cardiac": {
            "condition": "label",
            "classes": ["LV", "RV", "Myo", "Ao"],
            "label_set": {"classes": ["LV", "RV", "Myo", "Ao"], "label_map": None},
            "intensity": {"kind": "window", "lower": -160.0, "upper": 240.0},
            "is_hu": True,
            "window_hu": [-160.0, 240.0],
            "axis": "coronal",
            "spacing": 1.5,
            "interpolation": "linear",
            "fit": "pad",
            "min_pixels": 1,
            "split": {"rule": "splits.json"},
        },
        "dcgan_covid": {
            "window_hu": [-1350.0, 150.0],
            "classes": ["covid", "noncovid"],
            "fit": "stretch",
            "layout": "auto",
            "flips": False,
            "latent": 8,
            "standardiser": look,
            "split": {"rule": "splits.json"},
        },
    }
    for bundle, facts in models.items():
        (folder / bundle).mkdir(parents=True)
        (folder / bundle / "model.json").write_text(json.dumps({**shared, **facts}))
    own = {**shared, **models["pix2pix_covid"], "splits": splits, "split": {"rule": "by patient"}}
    (folder / "own_split").mkdir()
    (folder / "own_split" / "model.json").write_text(json.dumps(own))


def config_files(bundle: str, names: Sequence[str]) -> list[str]:
    """Paths of a bundle's YAML files."""
    return [str(ROOT / "bundles" / bundle / "configs" / f"{name}.yaml") for name in names]


def run(bundle: str, config: str, run_id: str, **settings: Any) -> None:
    """Runs a list of a config in this process, as ``python -m monai.bundle run`` does."""
    hook, seed = sys.excepthook, torch.initial_seed()
    try:
        workflow = ConfigWorkflow(
            config_files(bundle, [config]), run_id=run_id, workflow_type=None, **settings
        )
        workflow.initialize()
        workflow.run()
    finally:
        sys.excepthook = hook
        torch.manual_seed(seed)


MAKERS: dict[str, Callable[[Path], None]] = {
    "pairs": make_pairs,
    "offset": make_offset,
    "covid": make_covid,
    "hearts": make_hearts,
    "heart_pictures": make_heart_pictures,
    "mr": make_mr,
    "contrasts": make_contrasts,
    "classes": make_classes,
    "luna": make_luna,
    "crops": make_crops,
    "work": make_work,
    "models": make_models,
}


def make_files(folder: Path) -> Path:
    """All of them, each kind in a folder of its name."""
    for name, make in MAKERS.items():
        make(folder / name)
    return folder
