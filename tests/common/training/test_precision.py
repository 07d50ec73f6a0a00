from __future__ import annotations

import logging

import pytest
import torch
from torch import nn

from common.errors import UserError
from common.training import precision as module
from common.training.precision import IterationScaler, Precision, can_compile, choose_dtype
from tests.common.training.toy import toy_trainer

CPU = torch.device("cpu")


def test_float32_unless_asked():
    assert choose_dtype(CPU, False) is torch.float32


@pytest.mark.parametrize(("fast", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_cpu_uses_bf16_only_where_it_is_fast_and_says_so(monkeypatch, caplog, fast, dtype):
    monkeypatch.setattr(module, "cpu_has_fast_bf16", lambda: fast)
    with caplog.at_level(logging.INFO):
        assert choose_dtype(CPU, True) is dtype
    assert ("float32 is used" in caplog.text) is not fast


@pytest.mark.parametrize("amp", ["fp16", "half"])
def test_wrong_type_is_one_line(amp):
    with pytest.raises(UserError, match="amp"):
        choose_dtype(CPU, amp)


def test_autocast_computes_in_bf16_and_keeps_float32_weights():
    precision = Precision("cpu", amp="bf16", channels_last=True)
    network = precision.prepare(nn.Conv2d(1, 2, 3))
    with precision.autocast():
        output = network(precision.images(torch.ones(1, 1, 4, 4)))
    assert output.dtype is torch.bfloat16
    assert network.weight.dtype is torch.float32
    assert precision.images(torch.ones(2, 3, 4, 4)).is_contiguous(memory_format=torch.channels_last)


def test_compile_without_a_compiler_falls_back_in_one_line(monkeypatch, caplog):
    monkeypatch.setattr(module, "can_compile", lambda device: False)
    with caplog.at_level(logging.INFO):
        network = Precision("cpu", compile=True).prepare(nn.Linear(2, 2))
    assert "no compiler" in caplog.text
    assert network(torch.zeros(1, 2)).shape == (1, 2)
    assert set(network.state_dict()) == {"weight", "bias"}


@pytest.mark.parametrize(("amp", "layout"), [("bf16", torch.channels_last), (False, torch.contiguous_format)])
def test_channels_last_only_where_it_is_faster(amp, layout):
    assert Precision("cpu", amp=amp, channels_last=True).memory_format is layout


def test_networks_of_volumes_have_no_channels_last():
    precision = Precision("cpu", channels_last=True)
    precision.memory_format = torch.channels_last  # as with bf16
    precision.prepare(torch.nn.Conv3d(1, 2, 3))
    flat = precision.prepare(torch.nn.Conv2d(2, 3, 3))
    assert flat.weight.is_contiguous(memory_format=torch.channels_last)


def test_what_is_differentiated_twice_runs_eagerly_and_says_so(monkeypatch, caplog):
    compiled = []
    monkeypatch.setattr(module, "can_compile", lambda device: True)
    monkeypatch.setattr(nn.Module, "compile", lambda network: compiled.append(network))
    for penalty, names in ((10.0, ["G", "G_ema"]), (0.0, ["G", "D", "G_ema"])):
        compiled.clear()
        with caplog.at_level(logging.INFO):
            trainer = toy_trainer(compile=True, penalty=penalty)
        assert compiled == [trainer.networks[name] for name in names]
        assert ("compile: D runs eagerly" in caplog.text) is bool(penalty)
        caplog.clear()


@pytest.mark.slow
@pytest.mark.skipif(not can_compile(CPU), reason="no C++ compiler on this machine")
def test_compiled_networks_train_with_a_penalty_as_eager_ones_do():
    results = []
    for compiled in (True, False):
        trainer = toy_trainer(max_epochs=1, kind="wasserstein", penalty=10.0, ema=0, compile=compiled)
        trainer.networks["G"].net[2].p = 0.0  # compiled dropout draws other numbers
        trainer.run()
        assert (trainer.networks["G"]._compiled_call_impl is not None) is compiled
        results.append(dict(trainer.state.logs))
    assert results[0] == pytest.approx(results[1], rel=1e-3)


def scaled(scaler, parameter, optimizer, gradient):
    """A step on a loss whose scaled gradient is ``gradient``."""
    optimizer.zero_grad()
    scaler.scale((parameter * 0).sum()).backward()
    parameter.grad.fill_(gradient)
    scaler.step(optimizer)


@pytest.mark.parametrize("fused", [False, True])
def test_the_scale_changes_once_an_iteration_however_often_an_optimiser_steps(fused):
    parameter = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([parameter], lr=1.0, fused=fused)
    scaler = IterationScaler("cpu", init_scale=8.0, growth_interval=2, enabled=True)
    for gradient in (8.0, 16.0):  # unscaled 1 and 2
        scaled(scaler, parameter, optimizer, gradient)
    assert parameter.tolist() == [-2.0, -2.0]
    scaler.update()
    scaled(scaler, parameter, optimizer, 0.0)
    assert scaler.get_scale() == 8.0
    scaler.update()
    assert scaler.get_scale() == 16.0  # after two iterations, not after two steps
    for gradient in (float("inf"), 16.0):  # the first is skipped, the second is not, the scale remembers
        scaled(scaler, parameter, optimizer, gradient)
    scaler.update()
    assert parameter.tolist() == [-3.0, -3.0] and scaler.get_scale() == 8.0


def test_the_trainer_updates_the_scale_once_an_iteration():
    trainer, updates = toy_trainer(max_epochs=2, d_repeat=2), []
    trainer.precision.scaler = IterationScaler("cpu", init_scale=4.0, enabled=True)
    update = trainer.precision.scaler.update
    trainer.precision.scaler.update = lambda: updates.append(trainer.state.iteration) or update()
    trainer.run()
    assert updates == [1, 2, 3, 4]
