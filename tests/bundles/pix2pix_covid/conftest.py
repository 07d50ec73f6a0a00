"""Made pairs and one trained run, shared by the tests of this bundle."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tests.bundles.pix2pix_covid.runs import TINY, Run, arguments, command, finished

PATIENTS, SIDE, DEPTH = 8, 32, 4
AFFINE = np.diag([-11.0, -11.0, 30.0, 1.0])  # LPS voxel axes: rows and columns lie as in the picture


def make_patient(number: int) -> tuple[np.ndarray, np.ndarray]:
    """A body with lungs in HU and a lesion in one of them, int16 and uint8 (x, y, z)."""
    random = np.random.default_rng(number)
    x, y, z = np.mgrid[:SIDE, :SIDE, :DEPTH].astype(float)
    image = np.full((SIDE, SIDE, DEPTH), -1000.0)
    image[(x - 15.5) ** 2 / 14**2 + (y - 15.5) ** 2 / 11**2 < 1] = 40
    for centre in (9.5, 21.5):
        image[(x - centre) ** 2 / 4.5**2 + (y - 15.5) ** 2 / 8**2 < 1] = -850
    place = random.uniform([8, 11, 0], [11, 20, 3])
    place[0] += 12 * random.integers(2)
    lesion = (x - place[0]) ** 2 + (y - place[1]) ** 2 + 4 * (z - place[2]) ** 2 < random.uniform(6, 20)
    image[lesion] = -400
    image += random.normal(0, 20, image.shape)
    lesion[int(place[0]), int(place[1])] = True
    return image.astype(np.int16), lesion.astype(np.uint8)


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``images/`` and ``masks/`` of 8 made patients: 4 slices of 32 x 32 pixels, every one with a lesion."""
    folder = tmp_path_factory.mktemp("pairs")
    for name in ("images", "masks"):
        (folder / name).mkdir()
    for number in range(PATIENTS):
        for name, voxels in zip(("images", "masks"), make_patient(number), strict=True):
            nib.save(nib.Nifti1Image(voxels, AFFINE), folder / name / f"patient_{number:03d}.nii.gz")
    return folder


@pytest.fixture(scope="session")
def trained(pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run]:
    """A run's folder after two epochs of the plain command, and what the command printed."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    settings = {**TINY, "max_epochs": 2, "dataset_dir": pairs, "output_dir": folder}
    return folder, finished(command(arguments("training", "train", **settings)))
