"""A small set of hearts whose gray values tell the label: what is served can be checked against itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.common.data.made_volumes import heart_image, heart_label, save_volume


@pytest.fixture
def hearts(tmp_path: Path) -> Path:
    """``images/`` and ``labels/``: five patients p0..p4 of five slices."""
    folder = tmp_path / "hearts"
    for patient in range(5):
        label = heart_label(patient)
        save_volume(folder / "labels" / f"p{patient}.nii.gz", label)
        save_volume(folder / "images" / f"p{patient}.nii.gz", heart_image(label))
    return folder
