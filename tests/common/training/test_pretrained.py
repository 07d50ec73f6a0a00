"""Trainings that start from weights: what fits is loaded, the rest is named, a resumed run is left alone."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from common.errors import UserError
from common.handlers import HandlerGroup
from common.training.checkpoint import Resume, flat_state_dict
from common.training.pretrained import Pretrained, load_pretrained
from tests.common.training.toy import toy_trainer


def filled(value: float, inputs: int = 2) -> nn.Linear:
    network = nn.Linear(inputs, 3)
    for parameter in network.parameters():
        nn.init.constant_(parameter, value)
    return network


def values(network: nn.Module) -> set[float]:
    return {float(value) for tensor in network.state_dict().values() for value in tensor.unique()}


def save(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def test_half_precision_weights_go_into_the_network_and_its_average(tmp_path: Path) -> None:
    file = save(tmp_path / "model.pt", filled(0.5).half().state_dict())
    networks = {"G": filled(1), "G_ema": filled(2), "D": filled(3)}
    line = load_pretrained(networks, file, "G")
    assert line == f"{file}: G starts from 2 of its 2 tensors"
    assert [values(network) for network in networks.values()] == [{0.5}, {0.5}, {3.0}]
    assert networks["G"].weight.dtype is torch.float32


def test_a_file_of_several_networks(tmp_path: Path) -> None:
    parts = {"G": filled(0.5), "D": filled(0.25, inputs=4), "F": filled(0.125)}
    state = {f"{name}.{key}": v for name, net in parts.items() for key, v in net.state_dict().items()}
    file = save(tmp_path / "both.pt", state)
    networks = {"G": filled(1), "D": filled(3)}
    assert load_pretrained(networks, file, "G") == (
        f"{file}: G starts from 2 of its 2 tensors, D starts from 1 of its 2 tensors (not weight), "
        "no network F here"
    )
    assert values(networks["G"]) == {0.5} and values(networks["D"]) == {3.0, 0.25}


def test_a_run_starts_from_the_networks_and_the_average_of_another_run(tmp_path: Path) -> None:
    first = toy_trainer(max_epochs=1, handlers=[Resume(tmp_path)])
    first.run()
    second = toy_trainer(handlers=[Pretrained(tmp_path / "resume.pt")])
    assert second.state.iteration == 0
    for name, network in first.networks.items():
        again = flat_state_dict(second.networks[name])
        assert all(torch.equal(value, again[key]) for key, value in flat_state_dict(network).items()), name
    different = {
        key: float((first.networks["G"].state_dict()[key] - value).abs().sum())
        for key, value in second.networks["G_ema"].state_dict().items()
    }
    assert different["net.0.weight"] > 0


def test_a_resumed_run_keeps_its_own_weights(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    toy_trainer(max_epochs=1, handlers=[Resume(tmp_path)]).run()
    alone = toy_trainer(max_epochs=2, handlers=[Resume(tmp_path, resume=True)])
    group = HandlerGroup(
        resume=Resume(tmp_path, resume=True), pretrained=Pretrained(tmp_path / "no such file.pt")
    )
    with caplog.at_level(logging.INFO):
        both = toy_trainer(max_epochs=2, handlers=[group])
    assert "the run goes on with its own weights" in caplog.text
    for key, value in flat_state_dict(alone.networks["G"]).items():
        assert torch.equal(value, both.networks["G"].state_dict()[key])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"PNG", "not a readable model"),
        ({"epoch": 3}, "holds no weights"),
        ([torch.zeros(2)], "holds no weights"),
        ({}, "holds no weights"),
        ({"layer.weight": torch.zeros(3, 2)}, "none of its weights fits network G"),
    ],
    ids=["missing", "no file of torch", "numbers", "list", "empty", "another network"],
)
def test_what_holds_no_weights_is_refused_in_one_line(tmp_path: Path, content: Any, message: str) -> None:
    file = tmp_path / "given.pt"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        save(file, content)
    network = filled(1)
    with pytest.raises(UserError, match=message) as caught:
        load_pretrained({"G": network}, file, "G")
    assert str(file) in str(caught.value) and "\n" not in str(caught.value) and values(network) == {1.0}
