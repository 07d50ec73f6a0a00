"""Walks between latents, and the latent of a given image."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from bundles.dcgan_covid.latent_interpolation import (
    Endpoint,
    LatentSpace,
    LatentWalk,
    ProjectionSettings,
    check_ends,
    class_mixture,
    interpolate,
    linear,
    objective,
    project,
    spherical,
)
from common.errors import UserError
from common.inference.sampling import draw_images, latents
from common.provenance import Provenance
from common.visualization import grey_levels
from tests.bundles.dcgan_covid.made import CLASSES, LATENT, SIZE, make_generator


def test_the_line_goes_through_the_middle_and_both_ends() -> None:
    start, end = torch.tensor([2.0, 0.0, -4.0]), torch.tensor([0.0, 6.0, 0.0])
    found = interpolate(start, end, 3, "linear")
    torch.testing.assert_close(found, torch.tensor([[2.0, 0.0, -4.0], [1.0, 3.0, -2.0], [0.0, 6.0, 0.0]]))


def test_the_arc_between_right_angles_keeps_the_norm_and_the_line_does_not() -> None:
    start, end = torch.tensor([3.0, 0.0, 0.0]), torch.tensor([0.0, 0.0, 3.0])
    arc, line = (interpolate(start, end, 5, path) for path in ("spherical", "linear"))
    torch.testing.assert_close(arc.norm(dim=1), torch.full((5,), 3.0))
    torch.testing.assert_close(line[2].norm(), torch.tensor(3 / math.sqrt(2)))
    third = interpolate(start, end, 4, "spherical")[1]  # 30 degrees from the start
    torch.testing.assert_close(third, torch.tensor([3 * math.sqrt(0.75), 0.0, 1.5]))


def test_an_arc_has_equal_steps_whatever_the_angle() -> None:
    start, end = torch.tensor([1.0, 0.0]), torch.tensor([math.cos(2.5), math.sin(2.5)])
    steps = (interpolate(start, end, 6, "spherical").diff(dim=0)).norm(dim=1)
    torch.testing.assert_close(steps, torch.full((5,), 2 * math.sin(0.25)))


def test_norms_that_differ_grow_from_one_to_the_other() -> None:
    norms = interpolate(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 4.0]), 9, "spherical").norm(dim=1)
    assert (norms.diff() > 0).all() and norms[0] == 1 and abs(norms[-1] - 4) < 1e-6


def test_the_arc_to_the_same_direction_is_the_line() -> None:
    start, shares = torch.tensor([1.0, 2.0]), torch.tensor([0.0, 0.25, 1.0])
    torch.testing.assert_close(spherical(start, 3 * start, shares), linear(start, 3 * start, shares))
    torch.testing.assert_close(spherical(start, start, shares), start.expand(3, 2))


def test_what_has_no_way_is_refused() -> None:
    start = torch.tensor([1.0, 2.0])
    with pytest.raises(UserError, match="opposite"):
        interpolate(start, -2 * start, 4, "spherical")
    with pytest.raises(UserError, match="opposite"):
        interpolate(start, torch.zeros(2), 4, "spherical")
    with pytest.raises(UserError, match="at least 2"):
        interpolate(start, 2 * start, 1)
    with pytest.raises(UserError, match="'cubic' is unknown; choose linear or spherical"):
        interpolate(start, 2 * start, 3, "cubic")


NOTHING = Endpoint("to")


def test_names_for_people() -> None:
    assert Endpoint("from", seed=3).name == "seed 3 sample 0"
    assert Endpoint("to", image="a/b.png").name == "b.png"
    assert Endpoint("from", seed=3, sample=7).numbers == (3, 7)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"seed": 1, "image": "a.png"}, "--from_seed and --from_image: give one of the two"),
        ({"sample": 2}, "--from_sample belongs to --from_seed"),
        ({"seed": 1, "slice_index": 2}, "--from_slice belongs to --from_image"),
    ],
)
def test_an_end_is_one_thing(settings: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        Endpoint("from", **settings)  # type: ignore[arg-type]


def test_a_seed_is_a_whole_number() -> None:
    with pytest.raises(UserError, match="from_seed x: give a whole number of at least 0"):
        Endpoint("from", seed="x").numbers  # type: ignore[arg-type]  # noqa: B018


@pytest.mark.parametrize(
    ("start", "stop", "names", "said"),
    [
        (NOTHING, Endpoint("to", seed=1), [], "give --from_seed or --from_image"),
        (Endpoint("from", seed=1), NOTHING, [], "give --to_seed or --to_image$"),
        (Endpoint("from", seed=1), NOTHING, ["a"], "or --to_class to change the class alone"),
        (Endpoint("from", seed=1), Endpoint("to", seed=2, category="a"), [], "trained without classes"),
        (
            Endpoint("from", seed=1, category="c"),
            Endpoint("to", seed=2),
            ["a", "b"],
            "no class c; the model has a, b",
        ),
    ],
)
def test_no_walk_without_two_ends(start: Endpoint, stop: Endpoint, names: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        check_ends(start, stop, names)


def test_walks_between_all_kinds_of_ends() -> None:
    check_ends(Endpoint("from", seed=1), Endpoint("to", image="a.png"), [])
    check_ends(Endpoint("from", seed=1), Endpoint("to", category="b"), ["a", "b"])


QUICK = ProjectionSettings(drawn=6, starts=2, iterations=5)


def latent_space(classes: int = 0) -> LatentSpace:
    network, _ = make_generator(classes)
    return LatentSpace(network, {"classes": CLASSES[:classes]}, SIZE, settings=QUICK)


def frames(folder: Path) -> np.ndarray:
    with Image.open(folder / "interpolation.gif") as file:
        shown = []
        for number in range(file.n_frames):
            file.seek(number)
            shown.append(np.asarray(file.convert("L")))
    return np.stack(shown)


def record(folder: Path) -> dict:
    return dict(json.loads((folder / "interpolation.json").read_text()))


def test_from_seed_to_seed_begins_and_ends_at_the_samples(tmp_path: Path) -> None:
    model = latent_space()
    made_by = Provenance("painter", seed=1)
    LatentWalk(
        model, Endpoint("from", seed=1), Endpoint("to", seed=2, sample=3), tmp_path, 5, provenance=made_by
    ).run()
    shown = frames(tmp_path)
    assert shown.shape == (5, SIZE, SIZE)
    points = torch.cat([latents(1, [0], LATENT), latents(2, [3], LATENT)])
    whole = torch.cat([points, points.mean(0, keepdim=True)])
    expected = grey_levels(draw_images(model.network, whole)).astype(int)
    assert np.abs(shown[[0, 4, 2]] - expected).max() <= 1  # the last bit depends on the batch
    found = record(tmp_path)
    assert (found["path"], found["steps"], found["to"]["seed"], found["to"]["sample"]) == ("linear", 5, 2, 3)
    np.testing.assert_allclose(found["from"]["latent"], points[0], atol=1e-6)
    assert (found["synthetic"], found["bundle"]) == (True, "painter")
    with Image.open(tmp_path / "interpolation.png") as strip:
        assert strip.info["Description"] == "synthetic, painter"


def test_from_image_to_image_shows_and_measures_both(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, (name, shape) in enumerate({"a": (40, 30), "b": (16, 50)}.items()):
        pixels = np.random.default_rng(number).integers(0, 256, shape, dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    start, stop = (
        Endpoint(which, image=tmp_path / f"{name}.png") for which, name in (("from", "a"), ("to", "b"))
    )
    LatentWalk(latent_space(), start, stop, tmp_path / "out", steps=3, path="spherical").run()
    found = record(tmp_path / "out")
    for end in (found["from"], found["to"]):
        assert end["reconstruction"]["mae"] <= end["best_draw"]["mae"] + 0.05
        assert end["reconstruction"].keys() == {"ssim", "psnr", "mae", "mse"}
    with Image.open(tmp_path / "out" / "interpolation.png") as strip:
        assert strip.width == 5 * 166 + 6  # real, three steps, real
    printed = capsys.readouterr().out
    assert printed.count("reconstructed with SSIM") == 2
    assert "3 images from a.png to b.png, spherical" in printed


def test_to_a_class_alone_the_noise_stays(tmp_path: Path) -> None:
    model = latent_space(3)
    LatentWalk(model, Endpoint("from", seed=1), Endpoint("to", category="severe"), tmp_path, steps=5).run()
    found = record(tmp_path)
    assert (found["from"]["class"], found["to"]["class"]) == (0.0, 2.0)
    assert found["from"]["latent"] == found["to"]["latent"]
    noise, classes = latents(1, [0], LATENT).expand(5, -1), torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0])
    expected = grey_levels(draw_images(model.network, noise, classes)).astype(int)
    assert np.abs(frames(tmp_path) - expected).max() <= 1
    assert len(np.unique(expected.reshape(5, -1), axis=0)) == 5


def test_classes_of_the_ends(tmp_path: Path) -> None:
    model = latent_space(3)

    def classes(start: Endpoint, stop: Endpoint) -> tuple[float, float]:
        LatentWalk(model, start, stop, tmp_path, steps=2).run()
        found = record(tmp_path)
        return found["from"]["class"], found["to"]["class"]

    assert classes(Endpoint("from", seed=1, sample=4), Endpoint("to", seed=2)) == (
        1.0,
        1.0,
    )  # that of the first sample
    stop = Endpoint("to", seed=2, category="none")
    assert classes(Endpoint("from", seed=1, category="severe"), stop) == (2.0, 0.0)


def test_an_image_gets_the_class_that_fits_it_best(tmp_path: Path) -> None:
    model = replace(latent_space(3), settings=ProjectionSettings(drawn=9, starts=3, iterations=3))
    target = draw_images(model.network, latents(0, [7], LATENT), torch.tensor([1.0]))  # one of the candidates
    Image.fromarray(grey_levels(target)[0]).save(tmp_path / "a.png")
    point = model.locate(Endpoint("from", image=tmp_path / "a.png"))
    assert point.condition is not None and float(point.condition) == 1.0
    named = model.locate(Endpoint("from", image=tmp_path / "a.png", category="none"))
    assert named.condition is not None and float(named.condition) == 0.0


def test_mixtures_in_words() -> None:
    assert class_mixture(1.0, CLASSES) == "mild"
    assert class_mixture(1.25, CLASSES) == "mild 75 %, severe 25 %"
    assert class_mixture(1.999, CLASSES) == "severe"


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"steps": 1}, "steps 1: give a whole number of at least 2"), ({"path": "x"}, "'x'")],
)
def test_what_is_no_walk_is_refused(tmp_path: Path, settings: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        LatentWalk(latent_space(), Endpoint("from", seed=1), Endpoint("to", seed=2), tmp_path, **settings)  # type: ignore[arg-type]


SEARCH = ProjectionSettings(starts=2, iterations=150, learning_rate=0.1, prior=0.0)


class Painter(nn.Module):
    """Two values say how much of a ramp and of a disc there is; a class adds brightness."""

    def __init__(self) -> None:
        super().__init__()
        rows, columns = torch.meshgrid(torch.linspace(-1, 1, 16), torch.linspace(-1, 1, 16), indexing="ij")
        disc = ((rows**2 + (columns - 0.3) ** 2) < 0.3).float()
        self.basis = nn.Parameter(torch.stack([rows, disc]))
        self.norm = nn.BatchNorm2d(1)

    def forward(self, latent: Tensor, condition: Tensor | None = None) -> Tensor:
        image = torch.einsum("bl,lhw->bhw", latent, self.basis)[:, None]
        offset = 0 if condition is None else 0.5 * condition[:, None, None, None]
        return self.norm(0.3 * image + offset)


def test_it_finds_the_latent_of_a_generated_image() -> None:
    network, hidden = Painter().train(), torch.tensor([[0.8, -1.3]])
    target = network.eval()(hidden).detach()
    network.train()
    found = project(network, target, latents(0, range(16), 2), settings=SEARCH)
    torch.testing.assert_close(found.latent, hidden[0], atol=0.02, rtol=0)
    assert float((found.image - target).abs().mean()) < 0.05 * float((found.drawn - target).abs().mean())
    assert found.condition is None and found.image.shape == target.shape


def test_it_leaves_the_network_as_it_was() -> None:
    network = Painter().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    project(network, torch.zeros(1, 1, 16, 16), latents(0, range(8), 2), settings=SEARCH)
    assert network.training and all(weight.requires_grad for weight in network.parameters())
    assert all(weight.grad is None for weight in network.parameters())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_it_finds_the_class_too() -> None:
    network = Painter().eval()
    target = network(torch.tensor([[0.5, 0.5]]), torch.tensor([2.0])).detach()
    classes = torch.arange(30.0) % 3
    found = project(network, target, latents(0, range(30), 2), classes, SEARCH)
    assert found.condition is not None and float(found.condition) == 2.0
    torch.testing.assert_close(found.latent, torch.tensor([0.5, 0.5]), atol=0.02, rtol=0)


def test_it_is_the_same_every_time() -> None:
    network, target = Painter(), torch.rand(1, 1, 16, 16)
    first, second = (project(network, target, latents(3, range(16), 2), settings=SEARCH) for _ in range(2))
    assert torch.equal(first.latent, second.latent)


def test_the_parts_of_the_objective() -> None:
    target = torch.zeros(1, 1, 16, 16)
    images = torch.cat([target, target + 0.5])
    near, far = torch.tensor([[1.0, -1.0], [1.0, 1.0]]), torch.tensor([[0.0, 0.0], [2.0, 2.0]])
    plain = ProjectionSettings(structure=0.0, prior=0.0)
    torch.testing.assert_close(objective(images, target, near, plain), torch.tensor([0.0, 0.5]))
    prior = ProjectionSettings(structure=0.0, prior=2.0)
    torch.testing.assert_close(objective(images, target, near, prior), torch.tensor([0.0, 0.5]))
    torch.testing.assert_close(objective(images, target, far, prior), torch.tensor([2.0, 18.5]))
    structure = objective(images, target, near, ProjectionSettings(structure=1.0, prior=0.0))
    # Gray 0.5 against 0.75 in [0, 1]: SSIM 2 * 0.5 * 0.75 / (0.25 + 0.5625) = 0.923
    assert structure[0] < 1e-6 and structure[1] == pytest.approx(0.5 + 0.077, abs=1e-3)


def test_settings_that_leave_nothing_to_do_are_refused() -> None:
    with pytest.raises(UserError, match="iterations 0"):
        ProjectionSettings(iterations=0)
    with pytest.raises(UserError, match="prior -1"):
        ProjectionSettings(prior=-1)
