from __future__ import annotations

from pathlib import Path

import pytest

from common.data.patients import default_pattern, patient_of
from common.errors import UserError


@pytest.mark.parametrize(
    ("file", "patient"),
    [
        ("patient001_frame12.nii.gz", "patient001"),
        ("patient001_frame12_variant02.nii.gz", "patient001"),
        ("heart_variant02.nii.gz", "heart"),
        ("case7_012_variant02.png", "case7"),
        ("ct_train_1001.nii.gz", "ct_train_1001"),
        ("case_3.mhd", "case_3"),
        ("1001_179.png", "1001"),
        ("case7-012.jpg", "case7"),
        ("other.png", "other"),
    ],
)
def test_default_patterns(file: str, patient: str) -> None:
    path = Path(file)
    assert patient_of(path, default_pattern(path)) == patient


def test_groups_and_names() -> None:
    path = Path("A_R_03.nii.gz")
    assert patient_of(path, r"(?P<side>A)_(?P<patient>\w)") == "R"
    assert patient_of(path, r"(\w)_") == "A" and patient_of(path, r"\w_\w") == "A_R"
    assert patient_of(path, r"(\w+)_frame", name="B_frame1") == "B"
    with pytest.raises(UserError, match="no regular expression"):
        patient_of(path, "(")
