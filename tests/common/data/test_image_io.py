"""Pictures and pairs; damaged files give one line that names them, or load where the damage is harmless."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import itk
import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from common.data.image_io import for_each, read_label_picture, read_mask, read_pair, read_picture, read_pixels
from common.data.layouts import find_samples
from common.data.samples import Sample, stem
from common.errors import UserError
from tests.common.data.made_volumes import write_dicom, write_meta_image

# (X, Y, Z) with x to the patient's left and y to posterior, as ITK and DICOM have it (LPS).
LPS = np.arange(2 * 3 * 4).reshape(2, 3, 4).astype(np.int16) * 10 - 100


def upright(z: int) -> list[list[int]]:
    """Rows are y, columns are x: no flip is needed from LPS."""
    return LPS[:, :, z].T.tolist()


def save_itk(path: Path, compression: bool) -> None:
    image = itk.image_from_array(np.ascontiguousarray(LPS.T))
    image.SetSpacing([0.5, 0.5, 2.0])
    itk.imwrite(image, str(path), compression=compression)


@pytest.mark.parametrize("compression", [False, True])
def test_meta_images(tmp_path: Path, compression: bool) -> None:
    save_itk(tmp_path / "a.mhd", compression)
    image, is_hu, _ = read_pixels(Sample(tmp_path / "a.mhd", None, "a", index=3))
    assert image.tolist() == upright(3) and is_hu and image.dtype == np.float32


def test_pictures_of_8_and_16_bits(tmp_path: Path) -> None:
    array = np.array([[0, 60000], [3, 4], [5, 6]], np.uint16)
    Image.fromarray(array).save(tmp_path / "a.png")
    pixels = read_pixels(Sample(tmp_path / "a.png", None, "a", orientation="rot90"))
    assert pixels.values.tolist() == [[60000, 4, 6], [0, 3, 5]]
    assert pixels.source_range == (0, 65535) and not pixels.is_hu
    Image.fromarray(array.astype(np.uint8)).save(tmp_path / "b.png")
    assert read_pixels(Sample(tmp_path / "b.png", None, "b")).source_range == (0, 255)


def mask_sample(tmp_path: Path, values: list[int], **fields: object) -> Sample:
    Image.fromarray(np.array([values], np.uint8)).save(tmp_path / "m.png")
    return Sample(tmp_path / "m.png", tmp_path / "m.png", "m", **fields)  # type: ignore[arg-type]


def test_mask_conventions(tmp_path: Path) -> None:
    assert read_mask(mask_sample(tmp_path, [0, 1, 2])).tolist() == [[0, 1, 1]]
    assert read_mask(mask_sample(tmp_path, [0, 127, 128, 255], mask_threshold=128)).tolist() == [[0, 0, 1, 1]]
    assert read_mask(mask_sample(tmp_path, [0, 1, 2], mask_values=(1, 2))).tolist() == [[0, 1, 1]]
    lungs = mask_sample(tmp_path, [0, 1, 2, 3], mask_values=(3,), mask_background=(0, 1, 2))
    assert read_mask(lungs).tolist() == [[0, 0, 0, 1]]


def test_unexpected_mask_values(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"m\.png: unexpected mask values 3, 9; expected lesion \[1, 2\]"):
        read_mask(mask_sample(tmp_path, [0, 1, 3, 9], mask_values=(1, 2)))
    with pytest.raises(UserError, match="20 different values"):
        read_mask(mask_sample(tmp_path, list(range(20))))
    with pytest.raises(UserError, match="has no mask"):
        read_mask(Sample(tmp_path / "m.png", None, "m"))


def test_palette_masks_hold_indices(tmp_path: Path) -> None:
    picture = Image.fromarray(np.array([[0, 1, 2]], np.uint8))
    picture.putpalette([0, 0, 0, 9, 9, 9, 0, 0, 0] + [0] * 759)  # index 2 is painted as black as index 0
    picture.save(tmp_path / "m.png")
    assert read_mask(Sample(tmp_path / "m.png", tmp_path / "m.png", "m")).tolist() == [[0, 1, 1]]


@pytest.mark.realdata
def test_luna_scan_and_its_mask_lie_in_one_frame(shared_data: Path) -> None:
    scan = next((shared_data / "luna").glob("*.mhd"))
    mask = shared_data / "luna" / "lidc0001_nodule_mask.nii.gz"
    masks = nib.load(mask)
    slices = np.flatnonzero(np.asarray(masks.dataobj).any(axis=(0, 1)))
    sample = Sample(scan, mask, "a", index=int(slices[len(slices) // 2]))
    image, nodule = read_pixels(sample).values, read_mask(sample)
    assert image.shape == nodule.shape == (512, 512)
    assert image[nodule > 0].mean() > -400 > image[100:400, 100:400].min() + 400


@pytest.mark.parametrize("read", [read_picture, read_label_picture])
def test_pages_are_not_dropped(tmp_path: Path, read: Callable[[Path], object]) -> None:
    pages = [Image.fromarray(np.full((3, 4), value, np.uint8)) for value in (10, 20, 30)]
    pages[0].save(tmp_path / "a.TIF", save_all=True, append_images=pages[1:], format="TIFF")
    with pytest.raises(UserError, match=r"a\.TIF: holds 3 pages; save each as a picture of its own"):
        read(tmp_path / "a.TIF")
    pages[1].save(tmp_path / "b.TIFF")
    read(tmp_path / "b.TIFF")


SHAPE = (20, 16, 3)


def gray(shape: tuple[int, ...] = SHAPE[:2]) -> np.ndarray:
    return (np.arange(np.prod(shape)).reshape(shape) % 251).astype(np.uint8)


def hounsfield(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return (np.arange(np.prod(shape)).reshape(shape) % 900 - 800).astype(np.int16)


def lesion(shape: tuple[int, ...]) -> np.ndarray:
    mask = np.zeros(shape, np.uint8)
    mask[4:9, 3:6] = 1
    return mask


def write_picture(path: Path, array: np.ndarray) -> None:
    Image.fromarray(array).save(path)


def write_nifti(path: Path, array: np.ndarray, diagonal: Sequence[float] = (0.7, 0.7, 2.5)) -> None:
    nib.save(nib.Nifti1Image(array, np.diag([*diagonal, 1.0])), path)


def write_pair(folder: Path, kind: str) -> None:
    """A sound image and mask of one kind."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    if kind in ("png", "jpg", "png16"):
        image = folder / "images" / f"bad.{kind.removesuffix('16')}"
        write_picture(image, gray() if kind != "png16" else gray().astype(np.uint16) * 200)
        write_picture(folder / "masks" / "bad.png", lesion(SHAPE[:2]) * np.uint8(255))
        return
    places = {"dicom": (-0.7, -0.7, 2.5), "mhd": (-1, -1, 1), "zmhd": (-1, -1, 1)}
    write_nifti(folder / "masks" / "bad.nii.gz", lesion(SHAPE), places.get(kind, (0.7, 0.7, 2.5)))
    if kind == "dicom":
        write_dicom(folder / "images" / "bad", hounsfield())
        return
    image = folder / "images" / f"bad.{kind.removeprefix('z')}"
    if kind in ("mhd", "zmhd"):
        write_meta_image(image, hounsfield(), compression=kind == "zmhd")
    else:
        write_nifti(image, hounsfield())


def truncated(share: float) -> Callable[[bytes], bytes]:
    return lambda content: content[: int(len(content) * share)]


def zeroed(start: float, share: float) -> Callable[[bytes], bytes]:
    def damage(content: bytes) -> bytes:
        first, last = int(len(content) * start), int(len(content) * (start + share))
        return content[:first] + bytes(last - first) + content[last:]

    return damage


def flipped(place: int) -> Callable[[bytes], bytes]:
    return lambda content: (
        content[:place] + bytes([content[place % len(content)] ^ 0xFF]) + content[place + 1 :]
    )


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "text": lambda content: b"this is no image\n" * 20,
    "html": lambda content: b"<!DOCTYPE html><html>404</html>",
    **{f"truncated-{share}": truncated(share) for share in (0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.98)},
    "zeroed-start": zeroed(0.0, 0.1),
    "zeroed-middle": zeroed(0.4, 0.2),
    "zeroed-all": zeroed(0.0, 1.0),
    **{f"flipped-{place}": flipped(place) for place in (0, 1, 7, 18, 25, 40, 42, 60, 70, 90, 132, 150, 344)},
}
KINDS = ("png", "png16", "jpg", "nii", "nii.gz", "mhd", "zmhd", "dicom")
DAMAGED = {"mhd": "bad.raw", "zmhd": "bad.zraw", "dicom": "001.dcm"}
# Compressed kinds carry checksums: any change of their content is found.
CHECKED = ("nii.gz", "zmhd")
# These leave nothing to load, whatever the format. (A raw file of zeros is a constant volume.)
SHARES = (0.02, 0.1, 0.3, 0.5)
FATAL = ("empty", "text", "html", "zeroed-all", *(f"truncated-{share}" for share in SHARES))


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    folder = tmp_path_factory.mktemp("sound")
    for kind in KINDS:
        write_pair(folder / kind, kind)
    yield {kind: folder / kind for kind in KINDS}


def load(folder: Path) -> str:
    """The error's line, or an empty text where everything loads."""
    try:
        for_each(find_samples(folder), read_pair, "reading")
    except UserError as error:
        return str(error)
    return ""


def test_the_sound_files_load(sound: dict[str, Path]) -> None:
    assert {kind: load(folder) for kind, folder in sound.items()} == dict.fromkeys(KINDS, "")


def damaged(sound: Path, folder: Path, pattern: str, damage: str) -> str:
    """What loading a copy of ``sound`` says, in which one file was damaged; never more than a line."""
    shutil.copytree(sound, folder)
    target = next(folder.glob(pattern))
    target.write_bytes(DAMAGES[damage](target.read_bytes()))
    message = load(folder)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", KINDS)
def test_damaged_file(sound: dict[str, Path], tmp_path: Path, kind: str, damage: str) -> None:
    message = damaged(sound[kind], tmp_path / "set", f"images/**/{DAMAGED.get(kind, 'bad.*')}", damage)
    assert message == "" or "bad" in message
    if damage in FATAL or (kind in CHECKED and damage.startswith("zeroed")):
        assert message, "a destroyed file was taken for an image"


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_mhd_header(sound: dict[str, Path], tmp_path: Path, damage: str) -> None:
    message = damaged(sound["mhd"], tmp_path / "set", "images/bad.mhd", damage)
    assert message == "" or "bad" in message


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_mask(sound: dict[str, Path], tmp_path: Path, damage: str) -> None:
    message = damaged(sound["png"], tmp_path / "set", "masks/bad.png", damage)
    assert message == "" or str(tmp_path / "set" / "masks" / "bad.png") in message
    assert message or damage not in FATAL


def with_value(value: float) -> np.ndarray:
    array = hounsfield().astype(np.float32)
    array[3, 4, 1] = value
    return array


def palette(indices: np.ndarray) -> Image.Image:
    picture = Image.fromarray(indices)
    picture.putpalette([0, 0, 0, 200, 30, 30, 30, 200, 30] + [0] * 759)
    return picture


def colours(*channels: np.ndarray) -> np.ndarray:
    return np.stack(channels, -1)


G, L = gray(), lesion(SHAPE[:2])
UNFIT: dict[tuple[str, str], tuple[np.ndarray | Image.Image, str]] = {
    ("images/bad.png", "constant"): (np.full(SHAPE[:2], 7, np.uint8), "same value"),
    ("images/bad.png", "rgb"): (colours(G, G // 2, G), "in colour"),
    ("images/bad.png", "rgba"): (colours(G, G // 2, G, G), "in colour"),
    ("images/bad.png", "transparent"): (colours(G, G, G, G), "transparent"),
    ("images/bad.png", "gray-rgb"): (colours(G, G, G), ""),
    ("images/bad.png", "size"): (gray((16, 20)), "20 x 16 but bad.png is 16 x 20"),
    ("masks/bad.png", "soft"): (G, "different values"),
    ("masks/bad.png", "palette of labels"): (palette(L * np.uint8(2)), ""),
    ("masks/bad.png", "palette photograph"): (palette(G), "different values"),
    ("masks/bad.png", "rgb"): (colours(G, G // 3, G), "in colour"),
    ("masks/bad.png", "gray rgb"): (colours(L, L, L), ""),
    ("masks/bad.png", "bilevel"): (L > 0, ""),
    ("masks/bad.png", "empty"): (L * 0, ""),
    ("images/bad.nii.gz", "nan"): (with_value(np.nan), "NaN or infinite"),
    ("images/bad.nii.gz", "infinite"): (with_value(np.inf), "NaN or infinite"),
    ("images/bad.nii.gz", "constant"): (np.full(SHAPE, -1000, np.int16), "same value"),
    ("images/bad.nii.gz", "4-D"): (hounsfield((*SHAPE, 2)), "4 dimensions"),
    ("images/bad.nii.gz", "4-D single"): (hounsfield((*SHAPE, 1)), ""),
    ("images/bad.nii.gz", "size"): (hounsfield((16, 20, 3)), "16 rows instead of 20, 20 columns instead"),
    ("images/bad.nii.gz", "more slices"): (hounsfield((20, 16, 5)), "slices"),
    ("images/bad.nii.gz", "complex"): (hounsfield().astype(np.complex64), "complex"),
}


@pytest.mark.parametrize(("file", "case"), UNFIT)
def test_unfit_image_or_mask(sound: dict[str, Path], tmp_path: Path, file: str, case: str) -> None:
    shutil.copytree(sound["png" if file.endswith("png") else "nii.gz"], tmp_path / "set")
    content, expected = UNFIT[file, case]
    if file.endswith("png"):
        picture = content if isinstance(content, Image.Image) else Image.fromarray(content)
        picture.save(tmp_path / "set" / file)
    else:
        write_nifti(tmp_path / "set" / file, np.asarray(content))
    message = load(tmp_path / "set")
    assert (expected in message and Path(file).name in message) if expected else message == ""


def test_a_jpeg_under_another_name_is_read(sound: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(sound["png"], tmp_path / "set")
    Image.fromarray(gray()).save(tmp_path / "set" / "images" / "bad.png", format="JPEG")
    assert load(tmp_path / "set") == ""


def test_singular_affine(tmp_path: Path, sound: dict[str, Path]) -> None:
    shutil.copytree(sound["nii"], tmp_path / "set")
    target = tmp_path / "set" / "images" / "bad.nii"
    image = nib.Nifti1Image(hounsfield(), np.eye(4))
    image.header["sform_code"], image.header["qform_code"] = 2, 0
    image.header["srow_y"] = image.header["srow_x"]
    image.header.set_sform(image.header.get_sform(), code=2)
    nib.save(image, target)
    content = bytearray(target.read_bytes())
    content[296:312] = content[280:296]  # srow_y := srow_x
    target.write_bytes(bytes(content))
    assert "affine" in load(tmp_path / "set") and stem(target) in load(tmp_path / "set")


def test_gzip_of_something_else(tmp_path: Path, sound: dict[str, Path]) -> None:
    shutil.copytree(sound["nii.gz"], tmp_path / "set")
    (tmp_path / "set" / "images" / "bad.nii.gz").write_bytes(gzip.compress(b"no volume" * 200))
    assert "bad.nii.gz" in load(tmp_path / "set")


def test_several_problems_are_counted(tmp_path: Path, sound: dict[str, Path]) -> None:
    shutil.copytree(sound["png"], tmp_path / "set")
    for number in range(3):
        (tmp_path / "set" / "images" / f"bad{number}.png").write_bytes(b"")
        shutil.copy(tmp_path / "set" / "masks" / "bad.png", tmp_path / "set" / "masks" / f"bad{number}.png")
    assert load(tmp_path / "set").endswith("(2 more bad files)")
