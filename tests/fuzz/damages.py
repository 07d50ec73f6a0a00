"""What goes wrong in the field: each of `DAMAGES` arranges a set oddly or damages one patient's files."""

from __future__ import annotations

import gzip
import itertools
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
from PIL import Image
from pydicom.uid import RLELossless, generate_uid

from tests.fuzz.inputs import FORMATS, LOWER, PATIENTS, SHAPE, UPPER, Files, Rng, Scan

ALL, VOLUMES, PICTURES = tuple(FORMATS), ("nifti", "mhd", "mha", "nrrd"), ("png", "tiff")
SHAPED, FLOATS, NAMED = (*VOLUMES, "pair"), ("nifti", "mha", "npy"), ("nifti", "mha", "dicom", *PICTURES)


@dataclass(frozen=True)
class Damage:
    """What is done to a set.

    Attributes:
        stored: changes what is written of one patient; None where files are changed afterwards.
        files: changes the files of one patient.
        formats: where it can happen.
        fine: only odd: the set must be read, rightly and whole.
        blind: nobody can tell right from wrong values: only tracebacks and messages are looked at.
        doubt: wrong values are allowed after a warning.
        masked: needs masks.
        options: of `save_dicom`.
    """

    stored: Callable[[Scan], Scan] | None = None
    files: Callable[[Files, str, Rng], object] | None = None
    formats: Sequence[str] = ALL
    fine: bool = False
    blind: bool = False
    doubt: bool = False
    masked: bool = False
    options: dict[str, Any] = field(default_factory=dict)


def in_hu(change: Callable[[np.ndarray], np.ndarray], *formats: str, **more: Any) -> Damage:
    """Of the gray values of one patient."""
    return Damage(lambda scan: replace(scan, hu=change(scan.hu)), formats=formats, **more)


def in_label(change: Callable[[np.ndarray], np.ndarray], *formats: str, **more: Any) -> Damage:
    """Of the labels of one patient."""
    return Damage(
        lambda scan: replace(scan, label=change(scan.label)), None, formats or ALL, masked=True, **more
    )


def in_place(change: Callable[[np.ndarray], np.ndarray], both: bool = False, **more: Any) -> Damage:
    """Of the affine of one patient's mask, or of image and mask."""

    def moved(scan: Scan) -> Scan:
        affine = change(scan.affine.copy())
        return replace(scan, label_affine=affine, **({"affine": affine} if both else {}))

    return Damage(moved, formats=VOLUMES, masked=not both, **more)


def in_bytes(change: Callable[[bytes, Rng], bytes], *formats: str, **more: Any) -> Damage:
    """Of the bytes of one of a patient's files, image or mask."""

    def changed(files: Files, victim: str, rng: Rng) -> None:
        paths = [*files.images[victim], *files.masks.get(victim, [])]
        parts = [part for path in paths for part in ([path] if path.is_file() else sorted(path.iterdir()))]
        if parts[0].suffix == ".mhd" and rng.random() < 0.7:
            parts = sorted(parts[0].parent.glob(f"{parts[0].stem}*raw"))
        path = parts[int(rng.integers(len(parts)))]
        path.write_bytes(change(path.read_bytes(), rng))

    return Damage(files=changed, formats=formats or ALL, **more)


def flipped(content: bytes, rng: Rng, first: float = 0.0, last: float = 1.0) -> bytes:
    """Three bytes changed, within a share of the file."""
    array = np.frombuffer(content, np.uint8).copy()
    places = rng.integers(int(first * array.size), max(1, int(last * array.size)), 3)
    array[places] ^= rng.integers(1, 256, 3).astype(np.uint8)
    return array.tobytes()


def renamed(name: Callable[[Path, str], str], *formats: str, **more: Any) -> Damage:
    """Other names of all files of one patient, masks alike."""

    def changed(files: Files, victim: str, rng: Rng) -> None:
        for old in [*files.images[victim], *files.masks.get(victim, [])]:
            files.replaced(old, old.with_name(name(old, victim)))

    return Damage(files=changed, formats=formats, **more)


def resaved(change: Callable[[np.ndarray], np.ndarray], **more: Any) -> Damage:
    """One patient's NIfTI image with an array of another shape or type."""

    def changed(files: Files, victim: str, rng: Rng) -> None:
        path = files.images[victim][0]
        image: Any = nib.load(path, mmap=False)
        nib.save(nib.Nifti1Image(change(np.asarray(image.dataobj)), image.affine), path)

    return Damage(files=changed, formats=("nifti",), **more)


def in_header(change: Callable[[Any], object], **more: Any) -> Damage:
    """One patient's NIfTI image with another header."""

    def changed(files: Files, victim: str, rng: Rng) -> None:
        path = files.images[victim][0]
        image: Any = nib.load(path, mmap=False)
        header = image.header.copy()
        change(header)
        header["sform_code"] = 1
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj), None, header), path)

    return Damage(files=changed, formats=("nifti",), **more)


def redrawn(change: Callable[[Image.Image], Image.Image], masks: bool = False, **more: Any) -> Damage:
    """One patient's pictures (or masks) in another mode."""

    def changed(files: Files, victim: str, rng: Rng) -> None:
        for path in (files.masks if masks else files.images)[victim]:
            with Image.open(path) as picture:
                result = change(picture)
            result.save(path)

    return Damage(files=changed, formats=("png", "tiff"), masked=masks, **more)


def added(*names: str, content: bytes = b"\0\1 nothing", fine: bool = True, **more: Any) -> Damage:
    """Files that are no images, in all folders of the set."""

    def changed(files: Files, victim: str, rng: Rng) -> None:
        places = {path if path.is_dir() else path.parent for each in files.images.values() for path in each}
        for place, name in itertools.product(sorted(places), names):
            file = place / name.format(victim)
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(content)

    return Damage(files=changed, fine=fine, **more)


def of_slices(change: Callable[[list[Path]], object], **more: Any) -> Damage:
    """Of the slice files of one series, in the order of their places."""

    def changed(files: Files, victim: str, rng: Rng) -> None:
        folder = files.images[victim][0]
        change(sorted(folder.iterdir(), key=lambda f: float(pydicom.dcmread(f).ImagePositionPatient[2])))

    return Damage(files=changed, formats=("dicom",), **more)


def edited(change: Callable[[Any, int], object], **more: Any) -> Damage:
    """Of the header of each slice of all series."""
    return Damage(formats=("dicom",), options={"edit": change}, **more)


def linked(files: Files, victim: str, rng: Rng) -> None:
    """The patient's files lie elsewhere, links in their place."""
    for number, path in enumerate([*files.images[victim], *files.masks.get(victim, [])]):
        parts = [path, *path.parent.glob(f"{path.stem}.*raw"), *path.parent.glob(f"{path.stem}.hdr")]
        for part in dict.fromkeys(parts):
            elsewhere = files.root.parent / f"elsewhere{number}" / part.name
            elsewhere.parent.mkdir(exist_ok=True)
            part.rename(elsewhere)
            part.symlink_to(elsewhere)


def linked_folder(files: Files, victim: str, rng: Rng) -> None:
    """The folder of the images lies elsewhere."""
    folder = files.images[victim][0].parent
    if folder == files.root:
        return linked(files, victim, rng)
    elsewhere = files.root.parent / "elsewhere"
    folder.rename(elsewhere)
    return folder.symlink_to(elsewhere)


def looped(files: Files, victim: str, rng: Rng) -> None:
    """A link to the folder above, and one to nothing."""
    folder = files.images[victim][0].parent
    (folder / "again").symlink_to(files.root)
    (folder / "gone.nii.gz").symlink_to(files.root / "nothing.nii.gz")


def half_masked(files: Files, victim: str, rng: Rng) -> None:
    """Masks of two of four patients alone."""
    for name in PATIENTS[::2]:
        for path in files.masks[name]:
            path.unlink()


def lonely_image(files: Files, victim: str, rng: Rng) -> None:
    """An image is gone, its mask is not."""
    for path in files.images[victim]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def nested(files: Files, victim: str, rng: Rng) -> None:
    """The series of a patient one level deeper, as STUDY/SERIES."""
    for folder in files.images.values():
        inner = folder[0] / "STUDY1" / "CT 5.0"
        inner.mkdir(parents=True)
        for file in [file for file in folder[0].iterdir() if file.is_file()]:
            file.rename(inner / file.name)


def second_series(files: Files, victim: str, rng: Rng) -> None:
    """Another patient's series in the folder too."""
    other = next(name for name in PATIENTS if name != victim)
    for file in files.images[other][0].iterdir():
        shutil.copy(file, files.images[victim][0] / f"b{file.name}")


def twice(files: Files, victim: str, rng: Rng) -> None:
    """A file lies there in a second format, or compressed and not."""
    path = files.images[victim][0]
    if path.name.endswith(".gz"):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
    else:
        shutil.copy(path, path.with_suffix(".png" if path.suffix != ".png" else ".tif"))


def pages(files: Files, victim: str, rng: Rng) -> None:
    """All slices of a patient in one TIFF."""
    for paths in (files.images[victim], files.masks.get(victim, [])):
        pictures = [Image.fromarray(np.asarray(Image.open(path))) for path in paths]
        if pictures:
            pictures[0].save(paths[0], save_all=True, append_images=pictures[1:])
            for path in paths[1:]:
                path.unlink()


def turned(affine: np.ndarray, degrees: float) -> np.ndarray:
    """About the patient's long axis."""
    angle = np.deg2rad(degrees)
    rotation = np.eye(4)
    rotation[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return np.asarray(rotation @ affine)


def moved(affine: np.ndarray, voxels: float) -> np.ndarray:
    """Shifted along the columns."""
    affine[0, 3] += 0.8 * voxels
    return affine


def upper_case(path: Path, patient: str) -> str:
    """CT.NII.GZ."""
    return patient.join(part.upper() for part in path.name.split(patient))


def bilinear(picture: Image.Image) -> Image.Image:
    """Resized there and back with interpolation."""
    return picture.point(lambda value: value * 80).resize((48, 40)).resize(picture.size)


def coloured(picture: Image.Image) -> Image.Image:
    """In colours that differ."""
    gray = Image.fromarray(np.asarray(picture).astype(np.float32)).convert("L")
    return Image.merge("RGB", [gray, gray, gray.point(lambda value: 255 - value)])


def with_or_without_gz(path: Path, patient: str) -> str:
    """A name that promises compression, or no longer does."""
    return path.name[:-3] if path.suffix == ".gz" else path.name + ".gz"


def with_value(array: np.ndarray, value: float) -> np.ndarray:
    """One voxel changed; float32 where it must be."""
    array = array.astype(np.float32) if not np.isfinite(value) or value != int(value) else array.copy()
    array[8, 6, 2] = value
    return array


def set_tag(**values: Any) -> Callable[[Any, int], None]:
    """Sets DICOM elements; None deletes one."""

    def edit(data: Any, z: int) -> None:
        for name, value in values.items():
            if value is None:
                delattr(data, name)
            else:
                setattr(data, name, value)

    return edit


def tilted(data: Any, z: int) -> None:
    """A gantry tilt: each slice is shifted within its plane."""
    x, y, _ = data.ImagePositionPatient
    data.ImagePositionPatient = [x, y + 0.7 * z, 2.4 * z]


def in_colour(data: Any, z: int) -> None:
    """RGB as screenshots are."""
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PlanarConfiguration = 3, "RGB", 0
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 8, 8, 7, 0
    data.PixelData = bytes(3 * data.Rows * data.Columns)


def with_scout(slices: list[Path]) -> None:
    """A scout from the side in the same series."""
    data = pydicom.dcmread(slices[0])
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    data.ImageType, data.ImageOrientationPatient = ["ORIGINAL", "PRIMARY", "LOCALIZER"], [0, 1, 0, 0, 0, -1]
    data.save_as(slices[0].with_name("scout.dcm"))


def overlaid(data: Any, z: int) -> None:
    """12 bits count; an overlay lies above them."""
    stored = np.frombuffer(data.PixelData, "<u2").astype(np.int64)
    data.RescaleIntercept, data.RescaleSlope, data.PixelRepresentation = -1024, 1, 0
    hu = stored.astype("<u2").view("<i2")
    data.BitsStored, data.HighBit = 12, 11
    data.PixelData = ((hu.astype(np.int64) & 4095) | (stored % 2 << 14)).astype("<u2").tobytes()


DAMAGES: dict[str, Damage] = {
    "nothing": Damage(fine=True),
    # bytes
    "truncated": in_bytes(lambda content, rng: content[: int(rng.uniform(0.02, 0.98) * len(content))]),
    "short by a byte": in_bytes(lambda content, rng: content[:-1]),
    "empty file": in_bytes(lambda content, rng: b""),
    "zeros": in_bytes(lambda content, rng: bytes(len(content)), "nifti", "mha", "dicom", *PICTURES),
    "text": in_bytes(lambda content, rng: b"<html>404 Not Found</html>\n" * 9),
    "bytes flipped": in_bytes(flipped, blind=True),
    "header bytes flipped": in_bytes(lambda content, rng: flipped(content, rng, 0, 0.1), blind=True),
    "compressed bytes flipped": in_bytes(flipped, "png"),
    # names and folders
    "upper-case suffix": renamed(upper_case, *VOLUMES, *PICTURES, fine=True),
    "wrong suffix": renamed(with_or_without_gz, *VOLUMES, *PICTURES),
    "odd names": renamed(lambda p, v: p.name.replace(v, f"Müller #2 [a] & (b) {v}"), *NAMED, fine=True),
    "other odd names": renamed(lambda p, v: p.name.replace(v, f"-{v}%20a'; $x~"), *NAMED),
    "no suffix": renamed(lambda p, v: p.name.split(".")[0], "nifti", "png"),
    "system files": added("Thumbs.db", ".DS_Store", "desktop.ini", "._{}.nii.gz", "README.txt"),
    "system folders": added("@eaDir/{}.png", "__MACOSX/._{}.nii.gz", ".git/{}.png"),
    "papers": added("DICOMDIR", "LICENSE", "report.xml", "notes.pdf", formats=("dicom",)),
    "broken splits.json": Damage(None, lambda f, *_: (f.root / "splits.json").write_text("{"), blind=True),
    "links": Damage(files=linked, fine=True),
    "linked folder": Damage(files=linked_folder, fine=True),
    "loops of links": Damage(files=looped),
    "half of the masks": Damage(files=half_masked, masked=True),
    "mask alone": Damage(files=lonely_image, masked=True),
    "two formats": Damage(files=twice, formats=("nifti", *PICTURES)),
    "folder named as a file": added("case99.nii.gz/notes.txt", fine=False),
    "nested series": Damage(files=nested, formats=("dicom",), fine=True),
    # places
    "mask with identity affine": in_place(lambda affine: np.eye(4)),
    "identity affines": in_place(lambda affine: np.eye(4), both=True, blind=True),
    "mask moved by a voxel": in_place(lambda affine: moved(affine, 1)),
    "mask moved by 0.002 voxels": in_place(lambda affine: moved(affine, 0.002), fine=True),
    "mask mirrored": in_place(lambda affine: affine @ np.diag([-1.0, 1, 1, 1])),
    "mask turned": in_place(lambda affine: turned(affine, 12)),
    "both turned": in_place(lambda affine: turned(affine, 12), both=True, fine=True),
    "mask of another size": in_label(lambda mask: mask[:-2], *SHAPED),
    "mask with fewer slices": in_label(lambda mask: mask[..., :-1]),
    "mask with more slices": in_label(lambda mask: np.repeat(mask, 2, -1), *SHAPED),
    "axes swapped in the mask": in_label(lambda mask: np.swapaxes(mask, 0, 1)),
    "singular affine": in_header(lambda h: h["srow_y"].fill(0)),
    "affine of NaN": in_header(lambda h: h["srow_y"].fill(np.nan)),
    "giant affine": in_header(lambda h: [h[f"srow_{axis}"].__imul__(1e7) for axis in "xyz"], blind=True),
    "tiny affine": in_header(lambda h: [h[f"srow_{axis}"].__imul__(1e-3) for axis in "xyz"], blind=True),
    # values
    "HU + 1024": in_hu(lambda hu: (hu + 1024).astype(np.uint16), *FLOATS, doubt=True),
    "HU + 1000, floats": in_hu(lambda hu: (hu + 1000).astype(np.float32), *FLOATS, doubt=True),
    "NaN": in_hu(lambda hu: with_value(hu, np.nan), *FLOATS),
    "infinity": in_hu(lambda hu: with_value(hu, -np.inf), *FLOATS),
    "constant": in_hu(lambda hu: np.full_like(hu, -1000), *VOLUMES, "dicom", *PICTURES),
    "0 to 1": in_hu(lambda hu: np.float32((hu - LOWER) / (UPPER - LOWER)), *FLOATS, fine=True),
    "-1 to 1": in_hu(lambda hu: (hu / 1100).astype(np.float32), *FLOATS, doubt=True),
    "padding of -2000": in_hu(lambda hu: with_value(hu, -2000), *FLOATS, blind=True),
    "12 of 16 bits": in_hu(lambda hu: LOWER + (hu - LOWER) / 16, *PICTURES, doubt=True),
    "soft mask": in_label(lambda mask: mask * np.linspace(0.2, 0.3, SHAPE[2], dtype="f4"), "nifti", "mha"),
    "mask of 0.99998": in_label(lambda mask: mask * np.float32(0.99998), "nifti", "mha", fine=True),
    "mask with -1": in_label(lambda mask: with_value(mask.astype(np.int16), -1), "nifti", "mha"),
    "mask with NaN": in_label(lambda mask: with_value(mask, np.nan), "nifti", "mha"),
    "empty mask": in_label(lambda mask: mask * 0, blind=True),
    "CT as mask": Damage(lambda scan: replace(scan, label=scan.hu), formats=SHAPED, masked=True),
    # DICOM
    "slices missing": of_slices(lambda slices: slices[2].unlink()),
    "last slice missing": of_slices(lambda slices: slices[-1].unlink(), masked=True),
    "slices twice": of_slices(lambda slices: [shutil.copy(s, f"{s} (1).dcm") for s in slices], fine=True),
    "a slice cut": of_slices(lambda slices: os.truncate(slices[2], slices[2].stat().st_size * 2 // 3)),
    "two series": Damage(files=second_series, formats=("dicom",), masked=True),
    "MONOCHROME1": Damage(formats=("dicom",), options={"inverted": True}, fine=True),
    "rescale of each slice": Damage(formats=("dicom",), options={"per_slice": True}, fine=True),
    "RLE": Damage(formats=("dicom",), options={"syntax": RLELossless}, fine=True),
    "overlay bits": edited(overlaid, blind=True),
    "scout": of_slices(with_scout, fine=True),
    "gantry tilt": edited(tilted),
    "series in colour": edited(in_colour),
    "no positions": edited(set_tag(ImagePositionPatient=None)),
    "no pixel size": edited(set_tag(PixelSpacing=None, SliceThickness=None), blind=True),
    "no rows": edited(set_tag(Rows=None)),
    "no pixels": edited(set_tag(PixelData=None)),
    "no rescale": edited(set_tag(RescaleSlope=None, RescaleIntercept=None), doubt=True),
    "rescale slope 0": edited(set_tag(RescaleSlope=0)),
    "thickness as text": edited(lambda d, z: setattr(d, "SliceThickness", ["2", "2.0"][z % 2]), fine=True),
    "one PatientID": edited(set_tag(PatientID="ANON"), blind=True),
    # shapes
    "4-D of one": resaved(lambda a: a[..., None], fine=True),
    "4-D": resaved(lambda a: np.stack([a, a], -1)),
    "5-D": resaved(lambda a: a[..., None, None].repeat(3, -1)),
    "1-D": resaved(lambda a: a.ravel()),
    "no slices": resaved(lambda a: a[..., :0]),
    "NIfTI in colour": resaved(lambda a: np.zeros(a.shape, [("R", "u1"), ("G", "u1"), ("B", "u1")])),
    "complex": resaved(lambda a: a.astype(np.complex64)),
    # pictures
    "RGB": redrawn(coloured),
    "transparent": redrawn(lambda picture: Image.new("LA", picture.size, (90, 10))),
    "a colour mask": redrawn(coloured, masks=True),
    "bilinear mask": redrawn(bilinear, masks=True),
    "mask of another picture size": redrawn(lambda picture: picture.resize((40, 40), 0), masks=True),
    "pages in one TIFF": Damage(files=pages, formats=("tiff",)),
}
