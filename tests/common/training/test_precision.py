from __future__ import annotations

import logging

import pytest
import torch
from torch import nn

from common.errors import UserError
from common.training import precision as module
from common.training.precision import Precision, choose_dtype

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
