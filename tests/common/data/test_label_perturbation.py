from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from common.data.datamodules import StructureData
from common.data.datasets import SliceDataset
from common.data.label_perturbation import (
    PartnerSampler,
    Perturbation,
    PerturbedSliceDataset,
    aligned,
    deformed,
    grown,
    mixed,
    perturb_map,
)
from common.data.loaders import SampleIndex
from common.data.samples import Sample
from common.errors import UserError
from common.rng import make_rng
from tests.common.data.made_sets import structure_data


def disc(radius: float, centre: tuple[float, float] = (32, 32), size: int = 64) -> np.ndarray:
    rows, columns = np.mgrid[:size, :size]
    return ((rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < radius**2).astype(np.uint8)


def ring(inner: float, outer: float) -> np.ndarray:
    """Class 1 within class 2, as a ventricle within its wall."""
    return disc(outer) * np.uint8(2) - disc(inner)


def heart(seed: int = 0, depth: int = 9) -> np.ndarray:
    """A made volume (D, 64, 64): a wall around a pool that narrows to both ends, an atrium beside it."""
    shift = make_rng(seed, "made heart").uniform(-3, 3, 2)
    slices = []
    for z in range(depth):
        size = np.sqrt(max(1 - ((z - depth / 2) / (depth / 2)) ** 2, 0.05))
        centre = (30 + shift[0], 24 + shift[1])
        label = disc(14 * size, centre) * np.uint8(2)
        label[disc(9 * size, centre) > 0] = 1
        label[(disc(8 * size, (34, 46)) > 0) & (label == 0)] = 3
        slices.append(label)
    return np.stack(slices)


def areas(label: np.ndarray, classes: int = 3) -> np.ndarray:
    return np.bincount(label.ravel(), minlength=classes + 1)


# --- erosion and dilation ---


@pytest.mark.parametrize("pixels", [2.0, -2.0, 4.0])
def test_a_disc_grows_and_shrinks_by_the_given_pixels(pixels: float) -> None:
    label = disc(12)
    radius = np.sqrt(label.sum() / np.pi)  # of the disc that the pixels make
    result = grown(label, (0.0, pixels))
    assert result.sum() == pytest.approx(np.pi * (radius + pixels) ** 2, rel=0.05)


def test_a_border_between_classes_moves_by_the_difference() -> None:
    """The pool gains 2 pixels on its wall, the wall 1 pixel on the background and loses the 2."""
    label = ring(8, 16)
    result = grown(label, (0.0, 3.0, 1.0))
    assert areas(result)[1] == pytest.approx(np.pi * 10**2, rel=0.04)
    assert (result > 0).sum() == pytest.approx(np.pi * 17**2, rel=0.03)


def test_a_class_that_grows_through_a_thin_wall_stops_at_its_reach() -> None:
    label = ring(10, 12)
    result = grown(label, (0.0, 5.0, 0.0))
    assert set(np.unique(result)) == {0, 1}
    assert (result == 1).sum() == pytest.approx(np.pi * 15**2, rel=0.04)


def test_growing_through_slices_counts_their_distance() -> None:
    label = np.zeros((5, 9, 9), np.uint8)
    label[2, 4, 4] = 1
    near = grown(label, (0.0, 2.0), aspect=1.0)
    far = grown(label, (0.0, 2.0), aspect=3.0)
    assert near[0, 4, 4] == near[4, 4, 4] == 1
    assert far[2, 4, 2] == 1 and far[[0, 1, 3, 4]].sum() == 0


# --- elastic deformation ---


def test_a_shift_of_all_nodes_shifts_the_map() -> None:
    nodes = np.zeros((2, 1, 8, 8), np.float32)
    nodes[0], nodes[1] = 3.0, -5.0  # what is seen lies 3 rows below and 5 columns to the left
    label = disc(6, (30, 30))
    assert np.array_equal(deformed(label, nodes, 16.0), np.roll(label, (-3, 5), axis=(0, 1)))


def test_elastic_keeps_the_classes_and_their_order() -> None:
    label = ring(10, 18)
    changed = 0
    for seed in range(5):
        draw = Perturbation(elastic=0.05, growth=0.0).draw(make_rng(seed), label.shape, 2)
        result = perturb_map(label, draw)
        assert result.dtype == label.dtype and set(np.unique(result)) == {0, 1, 2}
        assert areas(result)[1:3] == pytest.approx(areas(label)[1:3], rel=0.35)
        changed += int((result != label).sum())
        pool = np.argwhere(result == 1)
        around = np.concatenate(
            [result[tuple((pool + step).T)] for step in ([0, 1], [1, 0], [0, -1], [-1, 0])]
        )
        assert np.mean(around == 0) < 0.02  # the wall still closes around the pool
    assert changed > 300


def test_the_strongest_field_does_not_fold() -> None:
    """The largest allowed displacement of alternating nodes keeps the order of the columns."""
    spacing = 10.0
    columns = np.broadcast_to(np.arange(200), (200, 200))
    nodes = np.full((2, 1, 23, 23), 0.4 * spacing, np.float32)
    nodes *= np.where(np.indices((23, 23)).sum(0) % 2, 1, -1)
    seen = deformed(columns, nodes, spacing)
    assert np.diff(seen.astype(int), axis=1).min() >= 0


# --- mixing ---


def test_a_mix_of_a_map_with_itself_is_itself() -> None:
    label = heart()
    assert np.array_equal(aligned(label, label), label)
    for weight in (0.1, 0.5, 1.0):
        assert np.array_equal(mixed(label, label, weight), label)
        assert np.array_equal(mixed(label[4], label[4], weight), label[4])


@pytest.mark.parametrize(("weight", "radius"), [(0.0, 10), (0.25, 12), (0.5, 14), (1.0, 18)])
def test_a_mix_of_two_discs_has_the_radius_between(weight: float, radius: float) -> None:
    result = mixed(disc(10), disc(18), weight)
    assert result.sum() == pytest.approx(np.pi * radius**2, rel=0.04)


def test_a_structure_that_one_patient_lacks_fades() -> None:
    both = disc(8, (20, 20)) + np.uint8(2) * disc(8, (44, 44))
    one = disc(8, (20, 20))
    sizes = [(mixed(both, one, weight) == 2).sum() for weight in (0.0, 0.1, 0.2, 0.6)]
    assert sizes[0] == (both == 2).sum() and sizes[0] > sizes[1] > sizes[2] > sizes[3] == 0
    assert ((mixed(both, one, 0.5) == 1) == (one == 1)).all()


def test_the_partner_is_brought_to_the_place_and_size() -> None:
    label, partner = disc(12, (20, 24)), disc(9, (30, 26), size=56)
    found = aligned(partner, label)
    assert found.shape == label.shape
    assert np.mean(found != label) < 0.02
    assert found.sum() == pytest.approx(label.sum(), rel=0.08)
    empty = np.zeros_like(label)
    assert np.array_equal(aligned(empty, label), label)
    assert np.array_equal(aligned(partner, empty), empty)


# --- drawn, then applied ---


def test_strength_zero_is_identity() -> None:
    still = Perturbation(elastic=0.0, growth=0.0, mix=0.0)
    for label in (heart(), heart()[4]):
        draw = still.draw(make_rng(3), label.shape, 3)
        assert np.array_equal(perturb_map(label, draw, heart(1)[: len(label)]), label)


def test_the_same_draw_gives_the_same_map_and_another_one_another() -> None:
    label = heart()[4]
    settings = Perturbation()
    first, again, other = (perturb_map(label, settings.draw(make_rng(s), label.shape, 3)) for s in (0, 0, 1))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_other_strengths_scale_the_same_draw() -> None:
    shape = (64, 64)
    weak = Perturbation(elastic=0.01, growth=0.01, mix=0.2).draw(make_rng(0), shape, 3)
    strong = Perturbation(elastic=0.02, growth=0.03, mix=0.4).draw(make_rng(0), shape, 3)
    assert strong.weight == pytest.approx(2 * weak.weight)
    assert strong.growth == pytest.approx([3 * value for value in weak.growth])
    assert np.allclose(strong.nodes, 2 * weak.nodes)


def test_strengths_mean_the_same_at_any_image_size() -> None:
    """The draw for a slice of twice the side moves everything by twice as many pixels."""
    settings = Perturbation(elastic=0.05, growth=0.02)
    small, large = (settings.draw(make_rng(2), (n, n), 1) for n in (128, 256))
    assert large.growth == pytest.approx([2 * value for value in small.growth])
    assert np.allclose(large.nodes, 2 * small.nodes)
    results = [perturb_map(disc(n / 5, (n / 2, n / 2), n), draw) for n, draw in ((128, small), (256, large))]
    assert results[1].mean() == pytest.approx(results[0].mean(), rel=0.05)


def test_volumes_change_coherently() -> None:
    """Between neighbouring slices the perturbed volume jumps no more than the volume itself, and less than
    slices that are perturbed each on its own."""
    label = heart(depth=17)
    settings = Perturbation(elastic=0.05, growth=0.02)
    whole = perturb_map(label, settings.draw(make_rng(0), label.shape, 3, aspect=1.0))
    apart = np.stack([perturb_map(s, settings.draw(make_rng(0, z), s.shape, 3)) for z, s in enumerate(label)])
    jumps = [np.mean(volume[1:] != volume[:-1]) for volume in (label, whole, apart)]
    assert np.mean(whole != label) > 0.02
    assert jumps[1] < 1.3 * jumps[0] and jumps[1] < 0.75 * jumps[2]


def test_the_partner_of_a_volume_is_mixed_in() -> None:
    label, partner = heart(0), heart(5)
    draw = Perturbation(elastic=0.0, growth=0.0, mix=1.0).draw(make_rng(0), label.shape, 3)
    assert 0.3 < draw.weight < 1
    result = perturb_map(label, draw, partner)
    assert set(np.unique(result)) <= {0, 1, 2, 3} and not np.array_equal(result, label)


@pytest.mark.parametrize(
    "bad", [{"elastic": 0.08, "spacing": 0.15}, {"mix": 1.5}, {"growth": -0.1}, {"spacing": 0.0}]
)
def test_bad_strengths_are_one_line(bad: dict[str, float]) -> None:
    with pytest.raises(UserError, match=r"fold|strengths"):
        Perturbation(**bad)


SIDE, DEPTH, PATIENTS = 48, 6, 6
AFFINE = np.diag([-1.0, -1.0, 3.0, 1.0])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hearts of two chambers whose image is a function of the label: a pool (500) in its wall (205)."""
    root = tmp_path_factory.mktemp("hearts")
    for name in ("images", "labels"):
        (root / name).mkdir()
    rows, columns, _ = np.mgrid[:SIDE, :SIDE, :DEPTH]
    for number in range(PATIENTS):
        distance = np.hypot(rows - 22 - number % 3, columns - 24)
        label = np.where(distance < 8, 500, np.where(distance < 12 + number % 2, 205, 0)).astype(np.uint16)
        image = np.where(label == 500, 300, np.where(label == 205, 100, -100)).astype(np.int16)
        for kind, voxels in (("images", image), ("labels", label)):
            nib.save(nib.Nifti1Image(voxels, AFFINE), root / kind / f"heart_{number}.nii.gz")
    return root


@pytest.fixture
def data(folder: Path, tmp_path: Path) -> Any:
    def make(**settings: Any) -> StructureData:
        plain = {"perturb": {"elastic": 0.05, "growth": 0.03, "mix": 0.4}, "labels": "LV,Myo"}
        return structure_data(folder, SIDE, tmp_path / "store", **{**plain, **settings})

    return make


def test_the_annotation_is_the_true_label_and_fits_the_image(data: Any) -> None:
    part = data().train
    batch = part.__getitems__([SampleIndex(n, 0) for n in range(8)])
    plain = SliceDataset(part.pairs, data().label_set).__getitems__([SampleIndex(n, 0) for n in range(8)])
    assert torch.equal(batch["annotation"], plain["label"]) and torch.equal(batch["image"], plain["image"])
    assert batch["label"].dtype == torch.float32 and batch["label"].shape == batch["annotation"].shape
    assert set(batch["label"].unique().tolist()) == {0.0, 1.0, 2.0}
    different = (batch["label"] != batch["annotation"]).float().mean((1, 2, 3))
    assert (different > 0).all() and different.mean() < 0.2


def test_a_visit_depends_on_seed_epoch_and_sample_alone(data: Any) -> None:
    one, again, other = data().train, data().train, data(seed=1).train
    label = one[SampleIndex(5, 3)]["label"]
    assert torch.equal(label, again.__getitems__([SampleIndex(0, 1), SampleIndex(5, 3)])["label"][1])
    for changed in (one[SampleIndex(5, 4)], other[SampleIndex(5, 3)]):
        assert not torch.equal(label, changed["label"])


def test_slices_that_are_no_visit_keep_their_own_perturbation(data: Any) -> None:
    """Validation sees the same labels each time, in a subset and under another seed too."""
    part, other = data().val, data(seed=7).val
    assert torch.equal(part[2]["label"], other[2]["label"])
    few = part.spread(3)
    assert isinstance(few, PerturbedSliceDataset) and len(few) == 3
    last = len(part) - 1
    assert few.samples[2].name == part.samples[last].name
    assert torch.equal(few[2]["annotation"], part[last]["annotation"])
    assert np.array_equal(part.labels[4], part[4]["label"].numpy())
    assert np.array_equal(part.annotations[4], part[4]["annotation"].numpy())
    assert not np.array_equal(part.labels, part.annotations)


def test_coarse_labels_are_merged_after_the_perturbation_and_the_annotation_is_not(data: Any) -> None:
    part = data(coarse=1.0).train
    visit, still = part[SampleIndex(2, 0)], part[2]
    assert part.classes == 3
    assert set(visit["label"].unique().tolist()) == {0.0, 3.0}
    assert set(visit["annotation"].unique().tolist()) == {0.0, 1.0, 2.0}
    assert set(still["label"].unique().tolist()) == {0.0, 1.0, 2.0}


def test_the_model_is_told(data: Any) -> None:
    made = data()
    assert made.metadata()["perturb"] == {"elastic": 0.05, "spacing": 0.15, "growth": 0.03, "mix": 0.4}
    assert "perturb" not in data(perturb=None).metadata()
    assert isinstance(made.test, PerturbedSliceDataset)


def test_an_image_as_condition_cannot_be_perturbed(data: Any) -> None:
    with pytest.raises(UserError, match="perturb needs labels"):
        data(condition="image", condition_dir="images")


def volume(name: str, depth: int, patient: str = "") -> list[Sample]:
    path = Path(f"{name}.nii.gz")
    return [Sample(path, path, patient or name, index=index) for index in range(depth)]


def drawn(samples: list[Sample], place: int, draws: int = 40) -> set[int | None]:
    peers = PartnerSampler(samples)
    return {peers.draw(place, make_rng(seed)) for seed in range(draws)}


def test_the_partner_lies_at_the_same_relative_height() -> None:
    samples = [*volume("a", 4), *volume("b", 8)]
    assert [drawn(samples, place) for place in range(4)] == [{5}, {7}, {9}, {11}]
    assert [drawn(samples, place) for place in (4, 5, 10, 11)] == [{0}, {0}, {3}, {3}]


def test_all_other_patients_are_drawn_and_never_the_own_one() -> None:
    samples = [*volume("a1", 2, "a"), *volume("a2", 2, "a"), *volume("b", 2), *volume("c", 2)]
    assert drawn(samples, 0) == {4, 6}
    assert drawn(samples, 3) == {5, 7}
    assert drawn(samples, 4) == {0, 2, 6}


def test_pictures_of_a_patient_belong_together() -> None:
    names = [("a", "a_1"), ("a", "a_2"), ("a", "a_3"), ("b", "b_1"), ("b", "b_2"), ("b", "b_3")]
    samples = [Sample(Path(f"{name}.png"), None, patient) for patient, name in names]
    assert [drawn(samples, place) for place in range(6)] == [{3}, {4}, {5}, {0}, {1}, {2}]


def test_a_patient_alone_has_no_partner_but_one_number_is_drawn() -> None:
    random, other = make_rng(0), make_rng(0)
    assert PartnerSampler(volume("a", 3)).draw(1, random) is None
    other.random()
    assert random.random() == pytest.approx(other.random())
