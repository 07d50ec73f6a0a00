"""The command line of the trust report: exit codes, what is written, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import Tensor
from torch.nn import functional

from common.errors import UserError
from common.files import write_json
from common.paths import repository_root
from common.rng import make_rng
from scripts.trust_report import GATE_CLOSED, GATE_UNDECIDED, main
from tests.common.trust.folders import dicom_series, pictures, textures, volume

BUNDLE = str(repository_root() / "bundles" / "dcgan_covid")
SIDE = 16


def blobs(folder: Path, count: int, seed: int) -> Path:
    """Smooth random slices, each of a patient of its own."""
    folder.mkdir()
    for number in range(count):
        coarse = make_rng(seed, "blobs", number).integers(0, 255, (4, 4)).astype(np.uint8)
        picture = Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        picture.save(folder / f"{folder.name}{number}-p1-1.png")
    return folder


class Coarse:
    """A quick extractor: 4 x 4 means."""

    name, dimension = "coarse", 16

    def __call__(self, images: Tensor) -> Tensor:
        return functional.adaptive_avg_pool2d(images, 4).flatten(1)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.trust.command.extractor_by_name", lambda name, weights: Coarse())
    monkeypatch.setattr("common.trust.registration.FULL_SEARCH", 0)
    monkeypatch.setattr("common.trust.membership.MOST_PAIRS", 0)
    monkeypatch.setattr("common.trust.near_copies.PLANTED", 8)


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A command line without synthetic images."""
    place = tmp_path_factory.mktemp("trust")
    write_json(place / "model.json", {"image_size": SIDE, "fit": "pad", "window_hu": [-1000, 400]})
    real, heldout = blobs(place / "real", 24, 1), blobs(place / "heldout", 20, 2)
    line = f"--bundle {BUNDLE} --real {real} --heldout {heldout} --ckpt_path {place / 'model.pt'}"
    return [*line.split(), *["--sections", "privacy", "--resamples", "10", "--device", "cpu"]]


def test_other_images_leave_the_gate_open(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = blobs(tmp_path / "other", 80, 3)
    page = tmp_path / "out" / "report.html"
    assert main([*words, "--synthetic", str(other), "--output", str(page)]) == 0
    assert "release gate open: no evidence of copying above" in capsys.readouterr().out
    found = json.loads((page.parent / "trust.json").read_text())
    assert found["gate"]["verdict"] == "open" and list(found["sections"]) == ["privacy"]
    assert found["sets"]["heldout"]["images"] == 20 and found["image_size"] == "16 pixels"
    assert str(tmp_path) not in page.read_text() and "Release gate open" in page.read_text()


def test_copies_close_it_and_the_rest_is_released(words: list[str], tmp_path: Path) -> None:
    mixed = blobs(tmp_path / "mixed", 12, 3)
    for number in range(12):  # turned and darkened
        turned = Image.open(next(Path(words[3]).glob(f"real{number}-*"))).rotate(90)
        turned.point(lambda value: value * 0.8).save(mixed / f"copy{number}-p1-1.png")
    page, cleared = tmp_path / "report.html", tmp_path / "cleared"
    line = ["--synthetic", str(mixed), "--output", str(page), "--release", str(cleared)]
    assert main([*words, *line]) == GATE_CLOSED == 3
    found = json.loads((tmp_path / "trust.json").read_text())
    assert not found["gate"]["open"] and {f"copy{k}-p1-1.png" for k in range(12)} <= set(
        found["gate"]["flagged"]
    )
    assert "Release gate closed" in page.read_text()
    kept = {file.name for file in cleared.glob("*.png")}
    assert kept and not any(name.startswith("copy") for name in kept)


def test_where_nothing_is_left_to_copy_the_answer_is_the_gates(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two volumes of two slices, one slice of each a training image: no volume may be copied."""
    real, other = textures(24, 1, SIDE), textures(2, 3, SIDE)
    folders = {"real": real, "heldout": textures(20, 2, SIDE)}
    for name, slices in folders.items():
        for number, each in enumerate(slices):
            volume(tmp_path / name / f"{name}{number}.nii.gz", grays_in_hu(each[..., None]))
    for number in range(2):
        both = np.stack([real[number], other[number]], -1)
        volume(tmp_path / "drawn" / f"v{number}.nii.gz", grays_in_hu(both))
    line = [f"--{name}={tmp_path / name}" for name in folders] + [f"--synthetic={tmp_path / 'drawn'}"]
    line += ["--window", "-1000", "255", "--image_size", str(SIDE), "--sections", "privacy"]
    line += ["--resamples", "10", "--device", "cpu", "--release", str(tmp_path / "cleared")]
    assert main([*line, "--output", str(tmp_path / "report.html")]) == GATE_CLOSED == 3
    assert len(json.loads((tmp_path / "trust.json").read_text())["gate"]["flagged"]) == 2
    assert "nothing copied to" in capsys.readouterr().out and not (tmp_path / "cleared").exists()


def grays_in_hu(grays: np.ndarray) -> np.ndarray:
    return (grays.astype(np.int16) * 1255 // 255 - 1000).astype(np.int16)


def test_undecided_has_a_code_of_its_own(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = blobs(tmp_path / "few", 19, 2)  # held-out patients
    line = [few if word == words[5] else word for word in words]
    line += ["--synthetic", str(blobs(tmp_path / "other", 30, 3)), "--output", str(tmp_path / "report.html")]
    assert main([*map(str, line)]) == GATE_UNDECIDED == 4
    assert "release gate UNDECIDED: 19 held-out patients are too few" in capsys.readouterr().out
    found = json.loads((tmp_path / "trust.json").read_text())
    assert found["gate"]["verdict"] == "undecided" and not found["gate"]["open"]
    assert "Release gate undecided" in (tmp_path / "report.html").read_text()


def test_a_release_never_mixes_with_other_files(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    line = ["--synthetic", "nowhere", "--output", "r.html", "--release", str(tmp_path / "mine")]
    with pytest.raises(UserError, match="mine: holds other files"):
        main([*words, *line])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--output r.html", "give their folder with --synthetic, or --generate N"),
        ("--synthetic nowhere --output r.html", "nowhere: no such folder"),
        ("--synthetic nowhere --output r.pdf", "r.pdf: give the report's file"),
        ("--synthetic nowhere --output r.html --seeds 0", "seeds 0: give a whole number of at least 1"),
        ("--synthetic nowhere --output r.html --max_similarity x", "max_similarity x: give a correlation"),
        ("--synthetic nowhere --output r.html --widht 3", "--widht: settings of the bundle's inference"),
    ],
)
def test_bad_input_is_one_line(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        main([*words, *line.split()])
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_images_of_any_generator_need_no_bundle(tmp_path: Path) -> None:
    """Volumes in NIfTI, a DICOM series a patient, and pictures: whatever somebody's generator left."""
    for number in range(3):
        volume(tmp_path / "train" / f"p{number}.nii.gz", hu(4, number))
        dicom_series(tmp_path / "others" / f"q{number}" / "CT", 4, 10 + number)
    drawn = pictures(tmp_path / "drawn", 6, 20, "image{0}")
    page = tmp_path / "report.html"
    folders = [f"--{name}={tmp_path / place}" for name, place in (("real", "train"), ("heldout", "others"))]
    rest = [f"--synthetic={drawn}", f"--output={page}", "--window", "-1000", "255", "--image_size", "16"]
    answer = main([*folders, *rest, "--sections", "privacy", "--resamples", "10", "--device", "cpu"])
    found = json.loads((tmp_path / "trust.json").read_text())
    assert answer == GATE_UNDECIDED and found["gate"]["verdict"] == "undecided"  # 3 held-out patients
    counts = {name: (each["images"], each["patients"]) for name, each in found["sets"].items()}
    assert counts == {"real": (12, 3), "heldout": (12, 3), "synthetic": (6, 0)}
    assert found["window"] == "-1000 to 255 HU" and found["bundle"] == "drawn"


def hu(depth: int, seed: int) -> np.ndarray:
    """Slices (H, W, depth) int16, as a DICOM series of the same seed has them."""
    return (textures(depth, seed).astype(np.int16).transpose(1, 2, 0) * 5) - 1000


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--heldout others --synthetic drawn --window 400 -1000", "the lower end must be below"),
        ("--heldout others --synthetic drawn --image_size 0", "image_size 0: give a whole number"),
    ],
)
def test_what_needs_a_bundle_says_so(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        main(["--real", "train", "--output", str(tmp_path / "r.html"), *line.split()])
