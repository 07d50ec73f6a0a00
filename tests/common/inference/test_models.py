from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from torch import nn

from common.data.intensity import WINDOWS, Window
from common.errors import UserError
from common.files import write_json
from common.inference.models import load_weights, model_info, model_window, network_for
from common.networks.discriminators import ConditionalPatchDiscriminator

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
