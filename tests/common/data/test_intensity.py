from __future__ import annotations

import numpy as np
import pytest

from common.data.intensity import WINDOWS, Window, from_network, to_hu, to_network, to_unit, window_by_name
from common.errors import UserError


def test_hu_within_the_window() -> None:
    unit = to_unit(np.array([-2000, -1000, -300, 400, 3000]), WINDOWS["lung"], is_hu=True)
    assert unit.tolist() == [0.0, 0.0, 0.5, 1.0, 1.0] and unit.dtype == np.float32


def test_gray_files_ignore_the_window() -> None:
    assert to_unit(np.array([0, 51, 255]), WINDOWS["bone"], is_hu=False).tolist() == pytest.approx(
        [0, 0.2, 1]
    )
    assert to_unit(np.array([0, 65535]), WINDOWS["bone"], False, (0, 65535)).tolist() == [0, 1]
    assert to_unit(np.array([100, 300]), WINDOWS["bone"], False, (100, 500)).tolist() == [0, 0.5]


def test_there_and_back() -> None:
    hu = np.array([-1000, -861, 0, 37, 400], np.int16)
    unit = to_unit(hu, WINDOWS["lung"], is_hu=True)
    assert to_hu(from_network(to_network(unit)), WINDOWS["lung"]).tolist() == hu.tolist()
    assert to_network(np.array([0.0, 1.0])).tolist() == [-1.0, 1.0]


def test_windows_by_name_and_by_numbers() -> None:
    assert window_by_name("lung") == Window(-1000, 400) == window_by_name([-1000, 400])
    with pytest.raises(UserError, match="mediastinum"):
        window_by_name("lungs")
    with pytest.raises(UserError, match="below"):
        window_by_name([400, -1000])
