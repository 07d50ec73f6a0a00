"""Slices of made chests: two boxes of air in a block of tissue."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from common.data.image_layouts import find_images, spaced_slices
from common.errors import UserError
from tests.common.data.made_sets import image_data

DEPTH, SPACING = 12, 4.0


def make_chest(path: Path, first: int, last: int, seed: int = 0, spacing: float = SPACING) -> None:
    """Lungs from slice ``first`` to ``last``, small in the first of them."""
    random = np.random.default_rng(seed)
    hu = np.full((DEPTH, 40, 48), -1000.0)
    hu[:, 4:36, 4:44] = 40
    for number in range(first, last + 1):
        half = 3 if number == first else 10
        for centre in (14, 34):
            hu[number, 20 - half : 20 + half, centre - half // 2 : centre + half // 2] = -850
    hu += random.normal(0, 10, hu.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    voxels = hu.transpose(2, 1, 0).astype(np.int16)  # columns to the left, rows to the back: -x, -y
    nib.save(nib.Nifti1Image(voxels, np.diag([-7.0, -7.0, spacing, 1.0])), path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "set"
    for patient in range(4):
        make_chest(place / f"case{patient}.nii.gz", first=2, last=9, seed=patient)
    return place


def indices(folder: Path, slice_mm: float | None) -> list[int | None]:
    samples = spaced_slices(find_images(folder).samples, slice_mm)
    return [sample.index for sample in samples if sample.patient.endswith("1")]


def test_slices_with_lung_so_far_apart(folder: Path) -> None:
    assert indices(folder, None) == list(range(DEPTH))
    assert indices(folder, 4) == list(range(3, 10))  # slice 2 has too little lung
    assert indices(folder, 10) == [3, 6, 9]  # 12 mm apart
    assert indices(folder, 12) == [3, 6, 9]
    assert indices(folder, 100) == [3]


def test_pictures_and_single_slices_stay(folder: Path) -> None:
    random = np.random.default_rng(1)
    Image.fromarray(random.integers(0, 255, (20, 20), dtype=np.uint8)).save(folder / "paper8-p1-1.png")
    nib.save(
        nib.Nifti1Image(np.full((8, 8, 1), 30.0, np.float32) + np.eye(8)[..., None], np.eye(4)),
        folder / "one.nii.gz",
    )
    names = [sample.image.name for sample in spaced_slices(find_images(folder).samples, 100)]
    assert sorted(names) == [*(f"case{n}.nii.gz" for n in range(4)), "one.nii.gz", "paper8-p1-1.png"]


def test_a_data_set_of_links_is_split_by_volume_and_remembers(folder: Path, tmp_path: Path) -> None:
    linked = tmp_path / "linked"
    linked.mkdir()
    for file in folder.iterdir():
        (linked / file.name).symlink_to(file)
    data = image_data(linked, 16, slice_mm=10)
    assert sum(len(part) for part in data.splits.values()) == 12
    parts = [{sample.patient for sample in part} for part in data.splits.values()]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 4
    assert data.metadata()["slice_mm"] == 10 and image_data(linked, 16).metadata()["slice_mm"] is None
    other = tmp_path / "elsewhere" / "linked"  # the class has the folder's name
    make_chest(other / "case7.nii.gz", 2, 9, seed=7)
    assert len(data.from_folder(other)) == 3


def test_what_cannot_be_told_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="slice_mm 0: give a distance above 0 mm"):
        spaced_slices(find_images(folder).samples, 0)
    solid = tmp_path / "solid" / "case1.nii.gz"
    make_chest(solid, 5, 4)
    with pytest.raises(UserError, match=r"case1\.nii\.gz: no lung found"):
        spaced_slices(find_images(solid.parent).samples, 10)
