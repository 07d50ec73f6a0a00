from __future__ import annotations

import errno
import logging

import pytest
import torch

from common.errors import UserError
from common.training import resume as module
from common.training.resume import CURRENT, PREVIOUS, Resume, read_state, refuse_existing, write_state
from tests.common.training.toy import toy_trainer


def state(iteration):
    return {"format": module.STATE_FORMAT, "iteration": iteration, "weights": torch.arange(3.0)}


def test_previous_file_is_kept(tmp_path):
    for iteration in (1, 2, 3):
        write_state(tmp_path, state(iteration))
    assert read_state(tmp_path)["iteration"] == 3
    assert module._load(tmp_path / PREVIOUS)["iteration"] == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([CURRENT, PREVIOUS])


@pytest.mark.parametrize("damage", [b"", b"not a checkpoint", None])
def test_unreadable_file_falls_back_and_says_so(tmp_path, caplog, damage):
    write_state(tmp_path, state(1))
    write_state(tmp_path, state(2))
    whole = (tmp_path / CURRENT).read_bytes()
    (tmp_path / CURRENT).write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    with caplog.at_level(logging.WARNING):
        assert read_state(tmp_path)["iteration"] == 1
    assert CURRENT in caplog.text


def test_missing_current_file_falls_back(tmp_path):
    write_state(tmp_path, state(1))
    (tmp_path / CURRENT).rename(tmp_path / PREVIOUS)
    assert read_state(tmp_path)["iteration"] == 1


def test_two_unreadable_files_are_one_line(tmp_path):
    for name in (CURRENT, PREVIOUS):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(UserError, match=r"resume\.pt: no resume file is readable"):
        read_state(tmp_path)


def test_no_file_is_none(tmp_path):
    assert read_state(tmp_path) is None


def test_full_disk_keeps_what_was_there(tmp_path, monkeypatch):
    write_state(tmp_path, state(1))

    def full(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module.torch, "save", full)
    with pytest.raises(UserError, match="disk is full"):
        write_state(tmp_path, state(2))
    assert read_state(tmp_path)["iteration"] == 1
    assert [p.name for p in tmp_path.iterdir()] == [CURRENT]


def test_limited_file_size_is_reported_and_leaves_no_rest(tmp_path):
    import resource

    write_state(tmp_path, state(1))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises((UserError, OSError)):
            write_state(tmp_path, {**state(2), "more": torch.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert read_state(tmp_path)["iteration"] == 1
    assert [p.name for p in tmp_path.iterdir()] == [CURRENT]


def test_existing_run_is_refused_unless_resumed(tmp_path):
    refuse_existing(tmp_path, resume=False)
    write_state(tmp_path, state(1))
    with pytest.raises(UserError, match="--resume true"):
        refuse_existing(tmp_path, resume=False)
    refuse_existing(tmp_path, resume=True)


class Counter:
    def __init__(self):
        self.value = 0

    def state_dict(self):
        return {"value": self.value}

    def load_state_dict(self, state):
        self.value = state["value"]


def test_handler_restores_trainer_and_handlers(tmp_path):
    counter, flushed = Counter(), []
    counter.value = 7
    saver = Resume(tmp_path, interval=3, handlers={"counter": counter}, flush=[lambda: flushed.append(1)])
    first = toy_trainer(max_epochs=1, handlers=[saver])
    first.run()
    assert len(flushed) == 3  # iteration 3, the epoch's end, the run's end
    fresh = Counter()
    second = toy_trainer(max_epochs=2, handlers=[Resume(tmp_path, resume=True, handlers={"counter": fresh})])
    assert second.state.iteration == 4
    assert fresh.value == 7
    for name, tensor in first.networks["G"].state_dict().items():
        assert torch.equal(tensor, second.networks["G"].state_dict()[name])
