"""Pictures on one sheet."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from common.errors import UserError
from common.explorer.sheets import grid_sheet, jpeg, square_sheet


def test_square_sheet_is_filled_row_by_row() -> None:
    pictures = np.arange(5, dtype=np.uint8)[:, None, None] + np.zeros((1, 2, 2), np.uint8)
    pictures[3, 0, 1] = 99
    sheet, columns = square_sheet(pictures)
    assert columns == 3
    assert sheet.tolist() == [
        [0, 0, 1, 1, 2, 2],
        [0, 0, 1, 1, 2, 2],
        [3, 99, 4, 4, 0, 0],
        [3, 3, 4, 4, 0, 0],
    ]


def test_grid_sheet_keeps_rows_and_columns() -> None:
    pictures = np.arange(2 * 3 * 2 * 2, dtype=np.uint8).reshape(2, 3, 2, 2)
    sheet = grid_sheet(pictures)
    assert sheet.shape == (4, 6)
    assert np.array_equal(sheet[2:4, 4:6], pictures[1, 2])


def test_jpeg_is_grey_and_close() -> None:
    sheet = np.linspace(0, 255, 64 * 48).reshape(64, 48).astype(np.uint8)
    picture = Image.open(io.BytesIO(jpeg(sheet)))
    assert picture.info["comment"].startswith(b"synthetic: a sheet")
    assert (picture.mode, picture.size) == ("L", (48, 64))
    assert np.abs(np.asarray(picture).astype(int) - sheet).max() <= 4


def test_sheets_that_browsers_do_not_decode_are_refused() -> None:
    with pytest.raises(UserError, match="17000 x 8 pixels together"):
        jpeg(np.zeros((17000, 8), np.uint8))
