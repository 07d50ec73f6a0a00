from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bundles.dcgan_covid.ends import End
from bundles.dcgan_covid.placing import Placing
from bundles.dcgan_covid.projection import ProjectionSettings
from bundles.dcgan_covid.walking import Walk, class_mixture
from common.errors import UserError
from common.inference.drawing import draw_images
from common.inference.latents import latents
from common.inference.strips import grey_levels
from common.provenance import Provenance
from tests.bundles.dcgan_covid.made_model import CLASSES, LATENT, SIZE, make_generator

QUICK = ProjectionSettings(drawn=6, starts=2, iterations=5)


def placing(classes: int = 0) -> Placing:
    network, _ = make_generator(classes)
    return Placing(network, {"classes": CLASSES[:classes]}, SIZE, settings=QUICK)


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
    model = placing()
    made_by = Provenance("painter", seed=1)
    Walk(model, End("from", seed=1), End("to", seed=2, sample=3), tmp_path, 5, provenance=made_by).run()
    shown = frames(tmp_path)
    assert shown.shape == (5, SIZE, SIZE)
    ends = torch.cat([latents(1, [0], LATENT), latents(2, [3], LATENT)])
    whole = torch.cat([ends, ends.mean(0, keepdim=True)])
    expected = grey_levels(draw_images(model.network, whole)).astype(int)
    assert np.abs(shown[[0, 4, 2]] - expected).max() <= 1  # the last bit depends on the batch
    found = record(tmp_path)
    assert (found["path"], found["steps"], found["to"]["seed"], found["to"]["sample"]) == ("linear", 5, 2, 3)
    np.testing.assert_allclose(found["from"]["latent"], ends[0], atol=1e-6)
    assert (found["synthetic"], found["bundle"]) == (True, "painter")
    with Image.open(tmp_path / "interpolation.png") as strip:
        assert strip.info["Description"] == "synthetic, painter"


def test_from_image_to_image_shows_and_measures_both(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, (name, shape) in enumerate({"a": (40, 30), "b": (16, 50)}.items()):
        pixels = np.random.default_rng(number).integers(0, 256, shape, dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    start, stop = (End(which, image=tmp_path / f"{name}.png") for which, name in (("from", "a"), ("to", "b")))
    Walk(placing(), start, stop, tmp_path / "out", steps=3, path="spherical").run()
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
    model = placing(3)
    Walk(model, End("from", seed=1), End("to", category="severe"), tmp_path, steps=5).run()
    found = record(tmp_path)
    assert (found["from"]["class"], found["to"]["class"]) == (0.0, 2.0)
    assert found["from"]["latent"] == found["to"]["latent"]
    noise, classes = latents(1, [0], LATENT).expand(5, -1), torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0])
    expected = grey_levels(draw_images(model.network, noise, classes)).astype(int)
    assert np.abs(frames(tmp_path) - expected).max() <= 1
    assert len(np.unique(expected.reshape(5, -1), axis=0)) == 5


def test_classes_of_the_ends(tmp_path: Path) -> None:
    model = placing(3)

    def classes(start: End, stop: End) -> tuple[float, float]:
        Walk(model, start, stop, tmp_path, steps=2).run()
        found = record(tmp_path)
        return found["from"]["class"], found["to"]["class"]

    assert classes(End("from", seed=1, sample=4), End("to", seed=2)) == (1.0, 1.0)  # that of the first sample
    stop = End("to", seed=2, category="none")
    assert classes(End("from", seed=1, category="severe"), stop) == (2.0, 0.0)


def test_an_image_gets_the_class_that_fits_it_best(tmp_path: Path) -> None:
    model = replace(placing(3), settings=ProjectionSettings(drawn=9, starts=3, iterations=3))
    target = draw_images(model.network, latents(0, [7], LATENT), torch.tensor([1.0]))  # one of the candidates
    Image.fromarray(grey_levels(target)[0]).save(tmp_path / "a.png")
    place = model.place(End("from", image=tmp_path / "a.png"))
    assert place.condition is not None and float(place.condition) == 1.0
    named = model.place(End("from", image=tmp_path / "a.png", category="none"))
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
        Walk(placing(), End("from", seed=1), End("to", seed=2), tmp_path, **settings)  # type: ignore[arg-type]
