from __future__ import annotations

import logging
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from bundles.patchgan_cardiac.networks import ContrastGenerator
from common.data.intensity import WINDOWS, Window
from common.errors import UserError
from common.files import write_json
from common.inference.checkpoint import (
    find_model,
    image_as_in_training,
    load_weights,
    locate_by_name,
    model_info,
    model_window,
    network_for,
)
from common.networks.discriminators import ConditionalPatchDiscriminator
from common.networks.generators import ResnetGenerator, SpadeGenerator
from tests.common.data.made_sets import image_data

CLASS = "common.networks.discriminators.ConditionalPatchDiscriminator"


def described(folder: Path, **network: object) -> Path:
    write_json(folder / "model.json", {"network": network})
    return folder / "model.pt"


def test_info_lies_beside_the_model_or_is_empty(tmp_path: Path) -> None:
    assert model_info(tmp_path / "model.pt") == {}
    write_json(tmp_path / "model.json", {"image_size": 64})
    assert model_info(tmp_path / "model.pt") == {"image_size": 64}
    (tmp_path / "model.json").write_text("{")
    with pytest.raises(UserError, match=r"model\.json: not valid JSON"):
        model_info(tmp_path / "model.pt")


def test_the_network_is_built_as_it_was_trained(tmp_path: Path) -> None:
    other = nn.Identity()
    assert network_for(tmp_path / "model.pt", other) is other
    network = network_for(described(tmp_path, target=CLASS, arguments={"channels": 4, "scales": 2}), other)
    assert isinstance(network, ConditionalPatchDiscriminator) and len(network.nets) == 2


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        ("common.networks.spade.SpadeGenerator", SpadeGenerator),
        ("bundles.patchgan_cardiac.contrast.ContrastGenerator", ContrastGenerator),
        ("common.networks.resnet_generator.ResnetGenerator", ResnetGenerator),
    ],
)
def test_models_trained_before_their_class_moved_are_loaded(
    tmp_path: Path, target: str, kind: type[nn.Module]
) -> None:
    network = network_for(described(tmp_path, target=target, arguments={}), nn.Identity())
    assert type(network) is kind
    torch.save(network.state_dict(), tmp_path / "model.pt")
    again = load_weights(network_for(tmp_path / "model.pt", nn.Identity()), tmp_path / "model.pt", "")
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize(
    "name",
    [
        "generation.dense.DenseGenerator",
        "generation.capsule_network.CapsuleDiscriminator",
        "generation.classifier.CropClassifier",
        "diagnosis.network.SliceClassifier",
        "downstream.network.SliceClassifier",
        "rivals.vgg.VggClassifier",
        "rivals.detector_network.PyramidDetector",
        "rivals.detector.DetectedNodules.from_model",
        "rivals.classifying.ClassifiedCandidates.from_model",
    ],
)
def test_what_the_bundles_models_name_is_found_where_it_is_now(name: str) -> None:
    found = locate_by_name(f"bundles.lung_two_stage.{name}")
    assert callable(found) and found.__qualname__ == name.split(".", 2)[2]


@pytest.mark.parametrize(
    ("target", "arguments", "told"),
    [
        ("os.system", {"command": "true"}, "is no network of this project"),
        ("common.errors.UserError", {}, "is no network of this project"),
        ("common.networks.nonesuch.Net", {}, "is no network of this project"),
        (CLASS, {"colour": 1}, "does not take its arguments"),
    ],
)
def test_foreign_or_unfit_descriptions_are_refused(
    tmp_path: Path, target: str, arguments: dict[str, object], told: str
) -> None:
    with pytest.raises(UserError, match=rf"model\.json: '{target}' {told}"):
        network_for(described(tmp_path, target=target, arguments=arguments), nn.Identity())


def test_the_window_travels_and_nominal_hu_is_said(caplog: pytest.LogCaptureFixture) -> None:
    assert model_window({}) == WINDOWS["lung"]
    assert model_window({"window_hu": [-160, 240]}) == Window(-160, 240) and not caplog.text
    with caplog.at_level(logging.WARNING):
        model_window({"nominal_hu": True})
    assert "nominal" in caplog.text


def test_weights_are_loaded_into_the_same_object_in_eval_mode(tmp_path: Path) -> None:
    source, target = nn.Linear(2, 3), nn.Linear(2, 3)
    torch.save(source.state_dict(), tmp_path / "model.pt")
    assert load_weights(target, tmp_path / "model.pt", "make demo") is target
    assert torch.equal(source.weight, target.weight) and not target.training


def test_one_line_says_which_model_is_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    network = nn.Linear(2, 3)
    for name, state in (("own", network.state_dict()), ("half", nn.Linear(2, 3).half().state_dict())):
        torch.save(state, tmp_path / f"{name}.pt")
        with caplog.at_level(logging.INFO):
            load_weights(network, tmp_path / f"{name}.pt", "")
    kinds = [message.rpartition(": ")[2] for message in caplog.messages]
    assert kinds == ["trained model", "shipped weights"] and network.weight.dtype is torch.float32


def test_the_trained_model_comes_before_the_shipped_one(tmp_path: Path) -> None:
    trained, second = tmp_path / "run" / "models" / "model.pt", tmp_path / "run" / "models" / "second.pt"
    shipped, none = tmp_path / "models" / "model.pt", tmp_path / "models" / "none.pt"
    assert find_model(trained, shipped) == str(trained)  # there is none: the message says how to train
    for file in (shipped, trained.with_name("other.pt")):
        file.parent.mkdir(parents=True)
        file.touch()
    assert find_model(trained, shipped) == str(shipped) and find_model(trained, none) == str(trained)
    trained.with_name("resume.pt").touch()  # begun, and no model yet
    assert find_model(trained, shipped) == str(trained) and find_model(second, shipped) == str(shipped)
    trained.touch()
    assert find_model(str(trained), str(shipped)) == str(trained)


def test_without_a_model_it_says_how_to_train(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model\.pt: no trained model yet; train first: make demo"):
        load_weights(nn.Linear(2, 3), tmp_path / "model.pt", "make demo")


@pytest.mark.parametrize("content", [b"", b"nonsense"])
def test_an_unreadable_model_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.pt").write_bytes(content)
    with pytest.raises(UserError, match="not a readable model"):
        load_weights(nn.Linear(2, 3), tmp_path / "model.pt", "make demo")


@pytest.mark.parametrize("state", [{"weight": torch.zeros(1)}, [1, 2], torch.zeros(3)])
def test_weights_of_another_network_are_one_line(tmp_path: Path, state: object) -> None:
    torch.save(state, tmp_path / "model.pt")
    with pytest.raises(UserError, match="does not fit the network"):
        load_weights(nn.Linear(2, 3), tmp_path / "model.pt", "make demo")


AXES = np.diag([-1.0, -1.0, 1.0, 1.0])


def picture(path: Path, height: int = 20, width: int = 30, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.mark.parametrize("fit", ["pad", "crop", "stretch"])
def test_it_is_what_training_saw(tmp_path: Path, fit: str) -> None:
    for number in range(9):
        picture(tmp_path / "set" / f"p{number}.png", 20 + number, 30, number)
    data = image_data(tmp_path / "set", 16, fit=fit, flips=False, standardise="histogram")
    sample, image = data.test.samples[0], data.test.images[:1]
    found = image_as_in_training(sample.image, data.metadata(), 16)
    assert torch.equal(found, torch.from_numpy(image))


def test_a_slice_of_a_volume_by_number_or_the_middle_one(tmp_path: Path) -> None:
    levels = np.linspace(-1000, 400, 5)  # of 5 slices
    noise = np.random.default_rng(0).integers(0, 2, (8, 8, 1))
    nib.save(nib.Nifti1Image((levels + noise).astype(np.int16), AXES), tmp_path / "v.nii.gz")
    middle, last = (
        image_as_in_training(tmp_path / "v.nii.gz", {"window_hu": [-1000, 401]}, 8, index)
        for index in (None, 4)
    )
    assert middle.shape == (1, 1, 8, 8) and abs(float(middle.mean())) < 0.01
    assert float(last.min()) > 0.99
    with pytest.raises(UserError, match="has no slice 5; its 5 slices are numbered from 0"):
        image_as_in_training(tmp_path / "v.nii.gz", {}, 8, 5)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.png: no such file"):
        image_as_in_training(tmp_path / "none.png", {}, 16)


def test_a_picture_has_no_slices(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a picture has no slices"):
        image_as_in_training(picture(tmp_path / "a.png"), {}, 16, 2)
