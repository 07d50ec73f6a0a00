from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from common.rng import make_rng
from common.trust import membership, near_copies, registration
from common.trust import privacy as privacy_section
from common.trust.gate import Gate, release_gate
from common.trust.image_sets import read_set
from common.trust.membership import Nearest, oriented_features
from common.trust.near_copies import draw_principal, find_copies
from common.trust.privacy import nearest_training, pattern_similarity, privacy
from common.trust.readers import ReadingSettings
from common.trust.report import Figure, Section
from tests.common.trust import copy_cases
from tests.common.trust.made import Coarse, noise, pictures, sets_with, turned


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compressing the sheets, and a search for zoom and small angles, would take most of the time."""
    monkeypatch.setattr(privacy_section, "SHOWN", 2)
    monkeypatch.setattr(registration, "FULL_SEARCH", 0)
    monkeypatch.setattr(registration, "FINE", 16)
    monkeypatch.setattr(membership, "MOST_PAIRS", 0)
    monkeypatch.setattr(near_copies, "PLANTED", 4)
    monkeypatch.setattr(near_copies, "HARMLESS", 4)


def measured(
    synthetic: Tensor, max_similarity: float | None = None
) -> tuple[dict[str, Figure], Section, Gate]:
    section, gate = privacy(sets_with(synthetic), Coarse(), 0, max_similarity, resamples=40)
    return {figure.name: figure for figure in section.figures}, section, gate


@pytest.mark.parametrize("change", ["turned", "noisy", "inverted"])
def test_copies_of_training_images_close_the_gate(change: str) -> None:
    copied = pictures(60, 0)[:40]
    copied = {
        "turned": turned(copied),
        "noisy": copied + 0.1 * noise(40, 0),
        "inverted": 0.3 - 0.6 * copied,
    }[change]
    found, section, gate = measured(torch.cat([copied, pictures(60, 2)]))
    assert gate.verdict == "closed" and gate.p_value < 1e-3
    assert set(range(40)) <= set(gate.flagged) and gate.nearest[:40] == list(range(40))
    assert "closed" in section.statement and "of 30 training patients, " in gate.reason
    assert 0.4 <= found["copies"].value.mean < 0.45
    if change != "inverted":
        assert found["membership_auc_pixels"].value.mean > 0.8  # 10 of the 30 patients were not copied
        assert found["membership_tpr_at_1_percent_pixels"].value.mean > 0.5
        assert "can tell training patients" in section.statement
    if change == "turned":  # the sheet shows the same image four times in its first row, 160 pixels a tile
        with Image.open(io.BytesIO(section.pictures[0].png)) as opened:
            sheet = np.asarray(opened.convert("L"))
        tiles = [sheet[40:150, left : left + 150] for left in (10, 176, 342, 508)]
        assert all(np.array_equal(tiles[0], tile) for tile in tiles[1:])
        assert f"{len(gate.flagged)} of 100" in section.pictures[0].caption


@pytest.mark.parametrize("seed", [2, 3])
def test_other_real_images_leave_it_open(seed: int) -> None:
    found, section, gate = measured(pictures(80, seed))
    assert gate.verdict == "open" and "open: no evidence of copying above" in section.statement
    assert gate.p_value > 0.05 and gate.noticed <= 0.2
    for space in ("pixels", "coarse"):
        attack = found[f"membership_auc_{space}"].value
        assert attack.low <= 0.5 <= attack.high and abs(attack.mean - 0.5) < 0.2
        assert found[f"distance_{space}"].value.mean == pytest.approx(1, abs=0.15)
    assert "do not tell" in section.statement
    assert min(section.facts["planted_copies_found"].values()) >= 0.75
    names = ("distance_{}", "membership_auc_{}", "membership_tpr_at_1_percent_{}")
    assert list(found) == ["copies", *(name.format(s) for s in ("pixels", "coarse") for name in names)]
    assert found["copies"].baselines["real_real"].mean <= 0.1
    assert found["membership_auc_coarse"].baselines["chance"].mean == 0.5
    assert found["membership_tpr_at_1_percent_coarse"].baselines["chance"].mean == 0.01
    assert found["distance_pixels"].extractor == "" and found["distance_coarse"].extractor == "coarse"
    assert all(f.value.low <= f.value.mean <= f.value.high for f in section.figures)
    facts = json.loads(json.dumps(section.plain(), allow_nan=False))["facts"]
    assert facts["gate"]["open"] and 0 < facts["gate"]["smallest_share_noticed"] <= 0.2
    assert [plot.kind for plot in section.plots] == ["steps", "steps", "line"]
    for plot in section.plots[:2]:
        assert all(sum(line.y) == pytest.approx(1) and len(line.x) == len(line.y) for line in plot.lines)


def test_sets_that_are_near_to_all_are_no_copies() -> None:
    """The mean image and samples of a few principal components: a threshold of similarity flags them all."""
    training = pictures(60, 0)
    near = torch.cat([training.mean(0).expand(20, -1, -1, -1), draw_principal(training, 60, make_rng(0))])
    found, _, gate = measured(near)
    assert gate.verdict == "open" and found["copies"].value.mean < 0.05
    assert list(found["copies"].baselines) == ["real_real", "mean_image", "pca", "blurred_heldout"]
    assert all(value.mean <= 0.25 for value in found["copies"].baselines.values())


def test_one_copy_among_many_closes_it() -> None:
    synthetic = pictures(60, 2)
    synthetic[17] = pictures(60, 0)[5].flip(-1)
    _, section, gate = measured(synthetic)
    assert measured(synthetic)[1:] == (section, gate)
    assert not gate.open and gate.flagged[0] == 17 and gate.nearest[17] == 5
    assert "1 image is a copy" in gate.reason
    row = section.facts["gate"]["flagged"][0]
    assert row["image"] == "synthetic_017.png" and row["nearest"] == "real_005.png"
    assert row["similarity"] == pytest.approx(1) and row["score"] > gate.threshold


def test_too_few_patients_leave_it_undecided() -> None:
    sets = sets_with(turned(pictures(38, 0)), heldout=38)  # 19 held-out patients
    section, gate = privacy(sets, Coarse(), resamples=20)
    assert gate.verdict == "undecided" and len(gate.flagged) == 38
    assert "undecided: 19 held-out patients are too few" in section.statement
    assert section.facts["gate"]["verdict"] == "undecided"


def test_similarity_is_a_correlation_and_a_constant_image_has_none() -> None:
    images = torch.cat([pictures(1, 0), torch.zeros(1, 1, 32, 32)])
    nearest = Nearest(torch.tensor([0.2, 1.0]).double(), torch.zeros(2).long(), torch.zeros(2).long())
    assert pattern_similarity(images, nearest).tolist() == pytest.approx([0.98, 0.0])


def test_slices_of_one_volume_are_one_for_the_share_of_copies() -> None:
    """Ten volumes of four slices, three of them copies: a wider interval than of forty images."""
    drawn = torch.cat([pictures(60, 0)[:12], pictures(28, 2)])
    single = sets_with(drawn)
    names = [f"v{place // 4}.nii.gz#{place % 4}" for place in range(40)]
    volumes = dataclasses.replace(single, synthetic=dataclasses.replace(single.synthetic, names=names))
    apart, together = (
        privacy(sets, Coarse(), resamples=40)[0].figures[0].value for sets in (single, volumes)
    )
    assert apart.mean == together.mean and together.patients == 10
    assert together.high - together.low > 1.3 * (apart.high - apart.low)


def test_similarity_and_nearest_are_of_one_image() -> None:
    """The more similar one of what registration and patterns find; a hit's own where it is another one."""
    sets, change = sets_with(pictures(10, 2)), dataclasses.replace
    pool = oriented_features(Coarse(), torch.cat([sets.real.images, sets.heldout.images]))
    made = find_copies(sets, Coarse(), pool)
    evidence = change(made.synthetic, scores=torch.full((10,), -9.0).double())
    evidence = change(
        evidence, training=torch.full((10,), 0.9).double(), training_images=torch.arange(20, 30)
    )
    apart = torch.tensor([0.0, *[1.0] * 9]).double()  # similarities 1 and 0.5
    patterns = Nearest(apart, torch.arange(10), torch.zeros(10).long())
    found = nearest_training(sets, change(made, synthetic=evidence), patterns, False)
    assert found.indices.tolist() == [0, *range(21, 30)]
    assert (1 - found.distances.square() / 2).tolist() == pytest.approx([1, *[0.9] * 9])
    assert found.orientations[1:].tolist() == evidence.training_orientations[1:].tolist()
    hit = change(evidence, scores=torch.full((10,), 99.0).double(), images=torch.full((10,), 7))
    hit = change(hit, orientations=torch.zeros(10).long())
    found = nearest_training(sets, change(made, synthetic=hit), patterns, False)
    drawn, like = sets.synthetic.images[4].flatten(), sets.real.images[7].flatten()
    correlation = abs(float(torch.corrcoef(torch.stack([drawn, like]))[0, 1]))
    assert found.indices.tolist() == [7] * 10
    assert 1 - float(found.distances[4]) ** 2 / 2 == pytest.approx(correlation, abs=0.02)
    alone = nearest_training(sets, change(made, synthetic=hit), patterns, True)
    assert alone.indices[1:].tolist() == [*range(21, 30)]


def test_what_makes_figures_doubtful_is_said() -> None:
    sets = sets_with(pictures(12, 2), real=12, heldout=12)
    sets.heldout.images[3] = sets.real.images[2].flip(-2)
    section, _ = privacy(sets, Coarse(), resamples=20)
    assert any(text.startswith("heldout_003.png is held out but nearly") for text in section.warnings)
    for name in ("training", "held-out"):
        assert any(text.startswith(f"{name} images of only 6 patients: ") for text in section.warnings)
    assert not any("too narrow" in text for text in section.warnings)
    assert not any("another hospital" in text for text in section.warnings)
    assert torch.isfinite(torch.tensor([f.value.mean for f in section.figures])).all()


def test_held_out_images_of_another_hospital_are_told() -> None:
    sets = sets_with(pictures(60, 2))
    elsewhere = dataclasses.replace(sets.heldout, images=sets.heldout.images * 0.5 - 0.4)
    section, _ = privacy(dataclasses.replace(sets, heldout=elsewhere), Coarse(), resamples=20)
    assert any("are they from another hospital" in text for text in section.warnings)
    assert section.facts["domain_shift"]["p_value"] < 0.01


@pytest.mark.slow
@pytest.mark.realdata
def test_shared_covid_ct(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cases of `copy_cases`: who copies is told from who does not, in one search for all."""
    monkeypatch.undo()  # the whole search
    monkeypatch.setattr(near_copies, "MOST_REFERENCE", 130)
    found = read_set(shared_data / "covid_ct" / "covid", ReadingSettings(64, kind="images", fit="pad"))
    training, heldout, unseen = copy_cases.split(found)
    made = copy_cases.cases(training, heldout, unseen)
    images = {name: made[name] for name in ("unseen", "blurred_heldout", "zoomed", "rotated", "halves")}
    sets = copy_cases.a_case(torch.cat(list(images.values())), training, heldout)
    pool = oriented_features(Coarse(), torch.cat([training.images, heldout.images]))
    everything = find_copies(sets, Coarse(), pool)
    for place, name in enumerate(images):
        count = copy_cases.IMAGES
        part = dataclasses.replace(
            everything, synthetic=everything.synthetic.part(slice(count * place, count * (place + 1)))
        )
        gate = release_gate(part, part.synthetic.training, part.synthetic.images.tolist())
        assert gate.verdict == ("open" if name in copy_cases.OPEN else "closed"), (name, gate.reason)
        assert gate.noticed < 0.2
