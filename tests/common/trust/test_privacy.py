from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from common.trust import distances, privacy_pictures
from common.trust.findings import Figure, Section
from common.trust.gate import Gate
from common.trust.orientations import shifted
from common.trust.privacy import privacy
from common.trust.reading import ReadingSettings, read_set
from common.trust.sets import Sets, split_by_patient
from tests.common.trust.made_textures import Coarse, noise, pictures, sets_with, turned


@pytest.fixture(autouse=True)
def small_sheets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compressing the sheets would take most of the time."""
    monkeypatch.setattr(privacy_pictures, "SHOWN", 2)


def measured(synthetic: Tensor, **settings: float) -> tuple[dict[str, Figure], Section, Gate]:
    section, gate = privacy(sets_with(synthetic), Coarse(), 0, resamples=40, **settings)
    return {figure.name: figure for figure in section.figures}, section, gate


@pytest.mark.parametrize("change", ["none", "turned", "noisy", "darker"])
def test_copies_of_training_images_close_the_gate(change: str) -> None:
    copies = pictures(60, 0)[:40]
    copies = {
        "none": copies,
        "turned": turned(copies),
        "noisy": copies + 0.1 * noise(40, 0),
        "darker": 0.6 * copies - 0.3,
    }[change]
    found, section, gate = measured(copies)
    assert not gate.open and len(gate.flagged) == 40 and gate.nearest == list(range(40))
    assert "closed" in section.statement and "40 images are copies" in gate.reason
    assert found["membership_auc_pixels"].value.mean > 0.8  # 20 of the 60 training images were not copied
    assert found["copies_pixels"].value.mean == 1 and found["distance_pixels"].value.mean < 0.2
    if change != "darker":
        assert found["copies_coarse"].value.mean == 1 and found["membership_auc_coarse"].value.low > 0.6
    assert "can tell training patients" in section.statement


def test_shifted_copies_close_it_or_it_is_said_that_none_are_looked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    copies = shifted(turned(pictures(60, 0)[:40]), (2, -1))
    _, section, gate = measured(copies)
    assert not gate.open and len(gate.flagged) == 40 and gate.nearest == list(range(40))
    assert "shifted by up to 6%" in section.facts["copies_looked_for"]
    monkeypatch.setattr(distances, "MOST_PAIRS", 60 * 60 - 1)
    _, section, still = measured(copies)
    assert "not shifted" in section.facts["copies_looked_for"]
    assert max(still.similarities) < min(gate.similarities)


def test_all_copies_are_told_with_certainty() -> None:
    found, _, gate = measured(turned(pictures(60, 0)))
    assert not gate.open
    assert all(found[f"membership_auc_{space}"].value.mean > 0.98 for space in ("pixels", "coarse"))


@pytest.mark.parametrize("seed", [2, 3])
def test_other_real_images_leave_it_open(seed: int) -> None:
    found, section, gate = measured(pictures(60, seed))
    assert gate.open and "open" in section.statement and gate.p_value > 0.05
    for space in ("pixels", "coarse"):
        attack = found[f"membership_auc_{space}"].value
        assert attack.low <= 0.5 <= attack.high and abs(attack.mean - 0.5) < 0.13
        assert found[f"distance_{space}"].value.mean == pytest.approx(1, abs=0.15)
    assert "do not tell" in section.statement


def test_one_copy_among_many_closes_it() -> None:
    synthetic = pictures(60, 2)
    synthetic[17] = pictures(60, 0)[5].flip(-1)
    _, section, gate = measured(synthetic)
    assert measured(synthetic)[1:] == (section, gate)
    assert not gate.open and gate.flagged[0] == 17 and gate.nearest[17] == 5
    assert "1 image is a copy" in gate.reason
    row = section.facts["gate"]["flagged"][0]
    assert row == {"image": "synthetic_017.png", "nearest": "real_005.png", "similarity": pytest.approx(1)}


def test_a_given_similarity_is_the_threshold() -> None:
    _, section, gate = measured(pictures(60, 2), max_similarity=0.99)
    assert gate.open and gate.threshold == 0.99 and not gate.flagged and "given 0.99" in gate.reason
    assert section.facts["gate"]["p_value"] is None


def test_the_section_is_plain_and_repeats() -> None:
    found, section, _ = measured(pictures(60, 2))
    assert list(found) == [
        f"{name}_{s}" for s in ("pixels", "coarse") for name in ("distance", "copies", "membership_auc")
    ]
    assert found["copies_pixels"].baselines["real_real"].mean == pytest.approx(0.05, abs=0.01)
    assert found["membership_auc_coarse"].baselines["chance"].mean == 0.5
    assert found["distance_pixels"].extractor == "" and found["distance_coarse"].extractor == "coarse"
    assert all(f.value.low <= f.value.mean <= f.value.high for f in section.figures)
    assert json.loads(json.dumps(section.plain(), allow_nan=False))["facts"]["gate"]["open"]
    assert [plot.kind for plot in section.plots] == ["steps", "steps", "line"]
    for plot in section.plots[:2]:
        assert all(sum(line.y) == pytest.approx(1) and len(line.x) == len(line.y) for line in plot.lines)


def test_the_sheet_shows_copies_beside_what_they_were_copied_from() -> None:
    _, section, _ = measured(turned(pictures(60, 0)))
    (picture,) = section.pictures
    with Image.open(io.BytesIO(picture.png)) as opened:
        sheet = np.asarray(opened.convert("L"))
    tiles = [sheet[40:150, left : left + 150] for left in (10, 176, 342)]  # the first row, 160 pixels a tile
    assert all(np.array_equal(tiles[0], tile) for tile in tiles[1:])
    assert "60 of 60" in picture.caption


def test_what_makes_figures_doubtful_is_said() -> None:
    sets = sets_with(pictures(12, 2), real=12, heldout=12)
    sets.heldout.images[3] = sets.real.images[2].flip(-2)
    section, _ = privacy(sets, Coarse(), resamples=20)
    assert any("12 held-out images cannot say what 5 %" in text for text in section.warnings)
    assert any(text.startswith("heldout_003.png is held out but nearly") for text in section.warnings)
    assert any("6 training and 6 held-out patients" in text for text in section.warnings)
    assert torch.isfinite(torch.tensor([f.value.mean for f in section.figures])).all()


@pytest.mark.slow
@pytest.mark.realdata
def test_shared_covid_ct(shared_data: Path) -> None:
    """Slices of other papers leave the gate open; one flipped, noisy training slice among them closes it."""
    found = read_set(shared_data / "covid_ct" / "covid", ReadingSettings(64, kind="images", fit="pad"))
    real, others = split_by_patient(found, 0)
    heldout, released = split_by_patient(others, 1)
    section, gate = privacy(Sets(real, heldout, released), Coarse(), resamples=60)
    assert gate.open and gate.p_value > 0.05, gate.reason
    attack = next(figure for figure in section.figures if figure.name == "membership_auc_pixels").value
    assert attack.low < 0.5 < attack.high
    released.images[5] = real.images[20].flip(-1) + 0.05 * noise(1, 0, 64)[0]
    _, gate = privacy(Sets(real, heldout, released), Coarse(), resamples=60)
    assert not gate.open and gate.flagged[0] == 5 and gate.nearest[5] == 20
