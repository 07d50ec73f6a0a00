"""What the networks of all bundles see of files of every kind is what it was when it was stored."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from tests.made_files import make_files
from tests.network_inputs import CASES, REAL, STEPS, STORED, items, link_real, packed, summary

ONE_LEVEL = 1 / 255


@pytest.fixture(scope="module")
def stored() -> Mapping[str, np.ndarray]:
    """The arrays of all cases, named CASE/KEY."""
    with np.load(STORED, allow_pickle=False) as file:
        return dict(file)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The made files."""
    return make_files(tmp_path_factory.mktemp("files"))


def of_case(stored: Mapping[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    """What is stored of one case, by key."""
    return {
        key.removeprefix(f"{name}/"): array for key, array in stored.items() if key.startswith(f"{name}/")
    }


@pytest.mark.parametrize("name", CASES)
def test_images_within_one_gray_level_and_labels_exactly(
    name: str, files: Path, stored: Mapping[str, np.ndarray]
) -> None:
    seen, expected = items(CASES[name], files), of_case(stored, name)
    assert set(seen) == set(expected)
    for key, before in expected.items():
        now = seen[key]
        assert now.shape == before.shape, key
        if before.dtype == packed(now).dtype and (now == np.rint(now)).all():
            np.testing.assert_array_equal(now, before, err_msg=key)
        else:
            assert before.dtype == np.int16, f"{key}: was whole numbers"
            np.testing.assert_allclose(now, before / STEPS, rtol=0, atol=ONE_LEVEL, err_msg=key)


def test_a_network_input_of_one_level_more_is_noticed(files: Path, stored: Mapping[str, np.ndarray]) -> None:
    """The stored images are fine enough: one 8-bit level in a window is 2 / 255 in [-1, 1]."""
    image = items(CASES["pairs_train"], files)["image"]
    assert np.abs(image - stored["pairs_train/image"] / STEPS).max() <= 0.5 / STEPS + 1e-6
    assert np.abs(image + 2 / 255 - stored["pairs_train/image"] / STEPS).max() > ONE_LEVEL


@pytest.mark.realdata
@pytest.mark.parametrize("name", REAL)
def test_real_files_have_the_stored_statistics(
    name: str, shared_data: Path, tmp_path: Path, stored: Mapping[str, np.ndarray]
) -> None:
    place = link_real(REAL[name], shared_data, tmp_path / "data")
    seen = {key: summary(array) for key, array in items(REAL[name].case, place).items() if array.ndim}
    expected = of_case(stored, name)
    assert set(seen) == set(expected)
    for key, before in expected.items():
        if before.dtype.kind == "i":
            np.testing.assert_array_equal(seen[key], before, err_msg=key)
        else:
            np.testing.assert_allclose(seen[key], before, rtol=0, atol=ONE_LEVEL, err_msg=key)
