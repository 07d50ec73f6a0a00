from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import betabinom, hypergeom

from common.data.intensity import Window
from common.errors import UserError
from common.trust.gate import (
    CLOSED,
    OPEN,
    UNDECIDED,
    Counts,
    Gate,
    _reason,
    certain_copies,
    counts_of,
    many_p_value,
    release,
    release_gate,
    side_p_value,
    smallest_noticed,
)
from common.trust.image_sets import ImageSet, Sets, read_set
from common.trust.near_copies import Copies
from common.trust.readers import ReadingSettings
from tests.common.trust import folders
from tests.common.trust.made import a_set, made_copies, pictures


def answer(copies: Copies) -> Gate:
    found = copies.synthetic
    return release_gate(copies, found.training, found.images.tolist())


def test_which_patients_are_hit_is_fishers_exact_test() -> None:
    assert side_p_value(0, 0, 5, 5) == 1
    assert side_p_value(3, 0, 5, 5) == pytest.approx(5 / 10 * 4 / 9 * 3 / 8)
    assert side_p_value(4, 2, 30, 20) == pytest.approx(float(hypergeom.sf(3, 50, 30, 6)))


def test_training_patients_with_more_images_are_hit_more_often() -> None:
    assert side_p_value(1, 0, 5, 5, odds=3.0) == pytest.approx(0.75)
    assert side_p_value(1, 0, 5, 5, odds=1 / 3) == pytest.approx(0.5)  # no reward for many held-out images
    assert side_p_value(9, 1, 20, 20) < 0.01 < side_p_value(9, 1, 20, 20, odds=10.0)


def test_the_rate_among_real_patients_counts_as_estimated() -> None:
    assert many_p_value(0, 50, 1, 60) == 1
    assert many_p_value(1, 1, 1, 19) == pytest.approx(1 / 20)  # the highest of twenty, by exchangeability
    assert many_p_value(9, 80, 3, 50) == pytest.approx(float(betabinom.sf(8, 80, 3, 48)))


def test_the_critical_number_is_the_fewest_that_close_it() -> None:
    counts = Counts(200, 30, 25, 0, 1, 55, 2)
    critical = counts.critical
    assert critical is not None and counts.p_value(critical) < 0.01 <= counts.p_value(critical - 1)
    assert Counts(200, 3, 2, 0, 0, 5, 1).critical is None
    assert Counts(0, 30, 25, 0, 0, 55, 2).critical is None


def test_false_closings_are_as_rare_as_stated_though_slices_are_clustered() -> None:
    """Ten slices each of six unseen patients: images are no unit."""
    closed = 0
    for seed in range(60):
        copies = made_copies(seed, unseen=6, slices=10)
        closed += counts_of(copies).p_value() < 0.01 or bool(certain_copies(copies).any())
    assert closed <= 2


def test_copies_close_it() -> None:
    copies = made_copies(3, unseen=35, slices=4, copied=60)
    gate = answer(copies)
    assert gate.verdict == CLOSED and not gate.open and gate.p_value < 1e-4
    assert set(range(140, 200)) - set(gate.flagged) == set()
    assert f"{len(gate.flagged)} of 200 synthetic images are outstandingly near" in gate.reason


def test_open_says_what_it_would_have_noticed_and_it_does() -> None:
    gate = answer(made_copies(3, unseen=35, slices=4))
    assert gate.verdict == OPEN and gate.open and 0.01 < gate.noticed < 0.2 and gate.p_value > 0.01
    assert gate.reason.startswith(f"no evidence of copying above {100 * gate.noticed:.3g} %")
    closed = 0
    for seed in range(12):
        copies = made_copies(seed, unseen=35, slices=4, copied=60)
        enough = math.ceil(smallest_noticed(copies, counts_of(copies)) * 200)
        found = copies.synthetic.part(torch.arange(140 + enough))
        closed += not answer(dataclasses.replace(copies, synthetic=found)).open
    assert closed >= 10


def test_the_kind_of_copy_that_is_found_worst_says_what_would_be_noticed() -> None:
    """Half of one kind are real images without their patients: about twice the share is needed."""
    copies = made_copies(3, unseen=35, slices=4)
    noisy, missed = copies.planted["noisy"], copies.reference
    scores = torch.where(torch.arange(8) < 4, noisy.scores, missed.scores[:8].clamp(max=0))
    worse = dataclasses.replace(
        copies, planted={"noisy": noisy, "x": dataclasses.replace(noisy, scores=scores)}
    )
    before, after = (smallest_noticed(each, counts_of(each)) for each in (copies, worse))
    assert 1.5 * before < after < 3 * before
    none = dataclasses.replace(noisy, scores=torch.zeros(8).double())
    lost = dataclasses.replace(copies, planted={"noisy": noisy, "x": none})
    assert smallest_noticed(lost, counts_of(lost)) == math.inf and answer(lost).verdict == UNDECIDED


def test_the_reason_is_in_plain_numbers() -> None:
    assert "less than 99.9 %" in _reason(UNDECIDED, Counts(9, 30, 25, 0, 0, 55, 1), 0, 0, 1.0, 0.999)
    assert "above 100 %" in _reason(OPEN, Counts(9, 30, 25, 0, 0, 55, 1), 0, 0, 1.0, 1.0)
    told = _reason(UNDECIDED, Counts(9, 30, 1, 1, 0, 31, 1), 1, 0, 1.0, 1.0)
    assert told.startswith("1 held-out patient is too few to tell") and "1 of 9 synthetic images is" in told


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"heldout": 19, "unseen": 35}, "19 held-out patients are too few"),
        ({"heldout": 19, "unseen": 35, "copied": 60}, "19 held-out patients are too few"),
        ({"unseen": 3}, "would not have been noticed"),
        ({"unseen": 35, "noise": 2.0}, "would not have been noticed"),  # planted copies were not found
    ],
)
def test_undecided_where_it_could_not_tell(settings: dict[str, int], told: str) -> None:
    gate = answer(made_copies(4, slices=4, **settings))
    assert gate.verdict == UNDECIDED and not gate.open and told in gate.reason


def test_copies_of_held_out_images_leave_it_open() -> None:
    """As near as copies, but to patients whom no generator saw."""
    copies = made_copies(6, unseen=35, slices=4, copied=60)
    swapped = dataclasses.replace(copies, trained=~copies.trained)  # 25 trained, 30 held out
    found = copies.hits(copies.synthetic)[0]

    assert found[140:].all()
    counts = counts_of(swapped)
    assert counts.hit <= 2 and counts.hit_heldout >= 20 and counts.p_value() == 1


def test_one_copy_certain_copies_closes_it() -> None:
    copies = made_copies(5, unseen=35, slices=4, copied=1)
    gate = answer(copies)
    assert gate.verdict == CLOSED and gate.flagged[0] == 140 and "1 image is a copy" in gate.reason
    assert certain_copies(copies).nonzero().flatten().tolist() == [140]


def test_a_given_threshold_allows_none_above_it() -> None:
    copies = made_copies(0, unseen=1, slices=4)
    similar, nearest = torch.tensor([0.5, 0.91, 0.2, 0.95]), [0, 1, 2, 3]
    gate = release_gate(copies, similar, nearest, max_similarity=0.9)
    assert not gate.open and gate.flagged == [3, 1] and math.isnan(gate.p_value) and not gate.calibrated
    assert release_gate(copies, similar, nearest, max_similarity=0.96).open
    for wrong in (1.5, math.nan):
        with pytest.raises(UserError, match=r"max_similarity .*: give a correlation between"):
            release_gate(copies, similar, nearest, max_similarity=wrong)


SETTINGS = ReadingSettings(32, Window(-1000, 275))


def gate(count: int, flagged: list[int]) -> Gate:
    similar = [0.99 if place in flagged else 0.2 for place in range(count)]
    return Gate("closed", 0.5, flagged, "made", similar, [place % 3 for place in range(count)], [1.5] * count)


def sets_of(synthetic: ImageSet) -> Sets:
    return Sets(a_set(pictures(3, 0), "real"), a_set(pictures(3, 1), "heldout"), synthetic)


def written(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_files_are_copied_as_they_are_and_flagged_ones_left_out(tmp_path: Path) -> None:
    source = folders.pictures(tmp_path / "made", 4, 0)
    sets = sets_of(read_set(source, SETTINGS, synthetic=True))
    assert release(sets, gate(4, [1]), tmp_path / "out") == 3
    assert written(tmp_path / "out") == ["case0_000.png", "case2_000.png", "case3_000.png", "released.json"]
    name = "case2_000.png"
    assert (tmp_path / "out" / name).read_bytes() == (source / name).read_bytes()
    manifest = json.loads((tmp_path / "out" / "released.json").read_text())
    (row,) = manifest["left_out"]
    expected = {"image": "case1_000.png", "nearest": "real_001.png", "similarity": 0.99, "score": 1.5}
    assert row == {**expected, "why": "too similar"}
    assert manifest["threshold"] == 0.5 and len(manifest["released"]) == 3 and manifest["gate"] == "closed"
    assert release(sets, gate(4, [0, 1]), tmp_path / "out") == 2  # an earlier release is replaced
    assert written(tmp_path / "out") == ["case2_000.png", "case3_000.png", "released.json"]


def test_labels_go_with_their_images(tmp_path: Path) -> None:
    source = tmp_path / "made"
    folders.pictures(source / "images", 3, 0)
    (source / "labels").mkdir()
    for place in range(3):
        Image.fromarray(np.full((32, 32), 1, np.uint8)).save(source / "labels" / f"case{place}_000.png")
    release(sets_of(read_set(source, SETTINGS, synthetic=True)), gate(3, [0]), tmp_path / "out")
    kept = [f"{folder}/case{place}_000.png" for folder in ("images", "labels") for place in (1, 2)]
    assert written(tmp_path / "out") == [*kept, "released.json"]


def test_what_made_an_image_goes_with_it_and_no_list_takes_its_place(tmp_path: Path) -> None:
    source = folders.pictures(tmp_path / "made", 3, 0)
    for place in range(3):
        (source / f"case{place}_000.json").write_text(f'{{"seed": {place}}}')
    release(sets_of(read_set(source, SETTINGS, synthetic=True)), gate(3, [1]), tmp_path / "out")
    kept = [f"case{place}_000.{kind}" for place in (0, 2) for kind in ("json", "png")]
    assert written(tmp_path / "out") == [*kept, "released.json"]
    assert json.loads((tmp_path / "out" / "case2_000.json").read_text()) == {"seed": 2}
    for kind in ("png", "json"):
        (source / f"case0_000.{kind}").rename(source / f"released.{kind}")
    with pytest.raises(UserError, match=r"released\.png: its released\.json is called as the list"):
        release(sets_of(read_set(source, SETTINGS, synthetic=True)), gate(3, []), tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_samples_of_shards_and_planes_of_stacks_are_written_apart(tmp_path: Path) -> None:
    hu = folders.textures(3, 0).astype(np.int16) * 5 - 1000
    mask = np.ones((32, 32), np.uint8)
    samples = {
        f"{place:09d}": {"image.npy": plane, "mask.npy": mask, "json": {}} for place, plane in enumerate(hu)
    }
    folders.shard(tmp_path / "shards" / "000000.tar", samples)
    release(sets_of(read_set(tmp_path / "shards", SETTINGS, synthetic=True)), gate(3, [0]), tmp_path / "out")
    files = [f"000000/{key:09d}.{kind}" for key in (1, 2) for kind in ("image.npy", "json", "mask.npy")]
    assert written(tmp_path / "out") == [*files, "released.json"]
    (tmp_path / "stack").mkdir()
    np.save(tmp_path / "stack" / "all.npy", hu)
    release(
        sets_of(read_set(tmp_path / "stack", SETTINGS, synthetic=True)), gate(3, [2]), tmp_path / "planes"
    )
    assert written(tmp_path / "planes") == ["all/000000.npy", "all/000001.npy", "released.json"]
    assert np.array_equal(np.load(tmp_path / "planes" / "all" / "000001.npy"), hu[1])


def test_one_flagged_slice_leaves_its_volume_out(tmp_path: Path) -> None:
    hu = (folders.textures(3, 0).astype(np.int16) * 5 - 1000).transpose(1, 2, 0)
    for name in ("a", "b"):
        folders.volume(tmp_path / "made" / f"{name}.nii.gz", hu)
    sets = sets_of(read_set(tmp_path / "made", SETTINGS, synthetic=True))
    assert len(sets.synthetic) == 6
    assert release(sets, gate(6, [1]), tmp_path / "out") == 3
    assert written(tmp_path / "out") == ["b.nii.gz", "released.json"]
    rows = json.loads((tmp_path / "out" / "released.json").read_text())["left_out"]
    other = "another slice of its volume is"
    assert [row["why"] for row in rows] == [other, "too similar", other]


def test_nothing_is_written_where_nothing_is_left_or_others_files_are(tmp_path: Path) -> None:
    sets = sets_of(read_set(folders.pictures(tmp_path / "made", 2, 0), SETTINGS, synthetic=True))
    with pytest.raises(UserError, match="all 2 images are near to training images"):
        release(sets, gate(2, [0, 1]), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="holds other files"):
        release(sets, gate(2, [0]), tmp_path / "made")
