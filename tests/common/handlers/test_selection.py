from __future__ import annotations

import math

import pytest

from common.errors import UserError
from common.handlers.selection import fid_then_faithfulness


def test_faithfulness_decides_between_equal_fids_and_outweighs_a_small_gain() -> None:
    ignores_lesions = {"fid_gridvgg": 9.0, "lesion_faithfulness": 0.1}
    draws_lesions = {"fid_gridvgg": 10.0, "lesion_faithfulness": 0.9}
    assert fid_then_faithfulness(draws_lesions) == pytest.approx(11.0)
    assert fid_then_faithfulness(ignores_lesions) == pytest.approx(17.1)


def test_fid_decides_between_equally_faithful_models() -> None:
    assert fid_then_faithfulness({"fid_x": 8.0, "lesion_faithfulness": 0.5}) == pytest.approx(12.0)


def test_structures_count_as_lesions_do() -> None:
    assert fid_then_faithfulness({"fid_x": 8.0, "structure_faithfulness": 0.25}) == pytest.approx(14.0)


@pytest.mark.parametrize(("faithfulness", "factor"), [(1.7, 1), (-3, 2), (math.nan, 2), (None, 2)])
def test_bounds(faithfulness: float | None, factor: float) -> None:
    metrics = {"fid_x": 5.0} | ({} if faithfulness is None else {"lesion_faithfulness": faithfulness})
    assert fid_then_faithfulness(metrics) == 5.0 * factor


def test_no_fid() -> None:
    with pytest.raises(UserError, match=r"needs a metric fid\*; validation gave ssim"):
        fid_then_faithfulness({"ssim": 0.5})
