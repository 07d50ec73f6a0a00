from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import itk
import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from common.data.image_io import read_label_picture, read_mask, read_picture, read_pixels
from common.data.samples import Sample
from common.errors import UserError

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


def test_nifti_and_meta_image_agree(tmp_path: Path) -> None:
    save_itk(tmp_path / "a.mhd", False)
    nib.save(nib.Nifti1Image(LPS, np.diag([-0.5, -0.5, 2.0, 1.0])), tmp_path / "a.nii.gz")
    ours = [read_pixels(Sample(tmp_path / name, None, "a", index=1)).values for name in ("a.mhd", "a.nii.gz")]
    assert ours[0].tolist() == ours[1].tolist() == upright(1)


def test_dicom_series_in_hu_sorted_by_place(tmp_path: Path) -> None:
    pydicom = pytest.importorskip("pydicom")
    study = pydicom.uid.generate_uid()
    for z in range(4):
        data = pydicom.Dataset()
        data.file_meta = pydicom.dataset.FileMetaDataset()
        data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        data.SOPClassUID = pydicom.uid.CTImageStorage
        data.SOPInstanceUID = pydicom.uid.generate_uid()
        data.StudyInstanceUID = data.SeriesInstanceUID = study
        data.Modality, data.InstanceNumber, data.SeriesDate = "CT", z + 1, "20200101"
        data.ImagePositionPatient, data.ImageOrientationPatient = [0, 0, 2 * z], [1, 0, 0, 0, 1, 0]
        data.PixelSpacing, data.Rows, data.Columns = [0.5, 0.5], 3, 2
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 0
        data.RescaleIntercept, data.RescaleSlope = -1024, 1
        data.PixelData = (LPS[:, :, z].T.astype(np.int32) + 1024).astype("<u2").tobytes()
        data.save_as(tmp_path / f"{9 - z}.dcm", enforce_file_format=True)  # names run against the places
    image, is_hu, _ = read_pixels(Sample(tmp_path, None, "a", index=2))
    assert image.tolist() == upright(2) and is_hu


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
