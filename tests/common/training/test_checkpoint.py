from __future__ import annotations

import errno
import json
import logging
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from common.errors import UserError
from common.handlers import HandlerGroup
from common.networks.state import flat_state_dict
from common.training import checkpoint as module
from common.training.checkpoint import (
    CURRENT,
    PREVIOUS,
    BestModelSaver,
    Pretrained,
    Resume,
    fid_then_faithfulness,
    load_pretrained,
    read_state,
    refuse_existing,
    save_tensors,
    stateful_handlers,
    write_state,
)
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

    def attach(self, engine):
        """Nothing to do."""

    def state_dict(self):
        return {"value": self.value}

    def load_state_dict(self, state):
        self.value = state["value"]


def test_no_handler_with_a_state_is_forgotten():
    inside, appended = Counter(), Counter()
    group = HandlerGroup(saver=Resume("models"), inside=inside, absent=None)
    assert stateful_handlers([group, appended, object()]) == {"inside": inside, "Counter": appended}
    with pytest.raises(UserError, match="two are called 'Counter'"):
        stateful_handlers([group, appended, Counter()])


def test_handler_restores_trainer_and_handlers(tmp_path):
    counter, flushed = Counter(), []
    counter.value = 7
    saver = Resume(tmp_path, interval=3, flush=[lambda: flushed.append(1)])
    first = toy_trainer(max_epochs=1, handlers=[HandlerGroup(counter=counter, resume=saver)])
    first.run()
    assert len(flushed) == 3  # iteration 3, the epoch's end, the run's end
    fresh = Counter()
    group = HandlerGroup(counter=fresh, resume=Resume(tmp_path, resume=True))
    second = toy_trainer(max_epochs=2, handlers=[group])
    assert second.state.iteration == 4
    assert fresh.value == 7
    for name, tensor in first.networks["G"].state_dict().items():
        assert torch.equal(tensor, second.networks["G"].state_dict()[name])


def test_equal_content_gives_equal_bytes_under_any_name(tmp_path):
    for name in ("one.pt", ".17.other.pt"):
        save_tensors({"weight": torch.arange(3.0)}, tmp_path / name)
    assert (tmp_path / "one.pt").read_bytes() == (tmp_path / ".17.other.pt").read_bytes()
    assert torch.load(tmp_path / "one.pt", weights_only=True)["weight"].tolist() == [0.0, 1.0, 2.0]


def test_a_limit_on_the_file_is_an_os_error(tmp_path):
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError) as caught:
            save_tensors({"weight": torch.zeros(100_000)}, tmp_path / "big.pt")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.errno == errno.EFBIG


@pytest.fixture
def engine(trainer: Any, plain_losses: Any) -> Any:
    return trainer(plain_losses, []).train(4)


def weight(path: Path) -> float:
    return float(torch.load(path, weights_only=True)["weight"])


def validate(best: BestModelSaver, engine: Any, iteration: int, metrics: dict[str, float]) -> bool:
    """One validation at ``iteration``, where the generator's weight is the iteration's number."""
    engine.state.iteration = iteration
    with torch.no_grad():
        engine.networks["G"].weight.fill_(iteration)
    return best.update(engine, metrics)


@pytest.mark.parametrize(("mode", "winner"), [("min", 20), ("max", 30)])
def test_the_best_by_a_metric_stays(tmp_path: Path, engine: Any, mode: str, winner: int) -> None:
    best = BestModelSaver(tmp_path / "models" / "model.pt", score="mae", mode=mode)
    for iteration, value in [(10, 3.0), (20, 1.0), (30, 4.0), (40, 2.0)]:
        validate(best, engine, iteration, {"mae": value})
    assert weight(best.path) == winner == best.best_iteration


def test_the_record_beside_the_model(tmp_path: Path, engine: Any) -> None:
    best = BestModelSaver(tmp_path / "model.pt", metadata={"window": [-1000, 400]})
    validate(best, engine, 8, {"fid_gridvgg": 10.0, "lesion_faithfulness": 0.5, "ssim": math.nan})
    assert json.loads((tmp_path / "model.json").read_text()) == {
        "window": [-1000, 400],
        "iteration": 8,
        "epoch": 1,
        "score": 15.0,
        "val_smoothing": 1,
        "metrics": {"fid_gridvgg": 10.0, "lesion_faithfulness": 0.5, "ssim": None},
    }


def test_the_moving_average_is_preferred(tmp_path: Path, engine: Any) -> None:
    engine.networks["G_ema"] = nn.Conv2d(1, 1, 1)
    best = BestModelSaver(tmp_path / "model.pt", score="mae")
    validate(best, engine, 10, {"mae": 1.0})
    assert weight(best.path) == float(engine.networks["G_ema"].weight.detach())


def test_resumed_does_not_overwrite_a_better_model(tmp_path: Path, engine: Any) -> None:
    first = BestModelSaver(tmp_path / "model.pt", score="mae")
    validate(first, engine, 10, {"mae": 1.0})
    second = BestModelSaver(tmp_path / "model.pt", score="mae")
    second.load_state_dict(first.state_dict())
    assert not validate(second, engine, 20, {"mae": 1.5})
    assert weight(second.path) == 10


NOISY = [9.0, 8.0, 2.0, 8.0, 7.0, 6.5, 6.0, 30.0, 7.0]  # lucky at the third, unlucky at the eighth


@pytest.mark.parametrize(("smoothing", "winner"), [(1, 3), (3, 7)])
def test_one_lucky_validation_does_not_win(tmp_path: Path, engine: Any, smoothing: int, winner: int) -> None:
    """Medians of three from the third on: 8, 8, 7, 7, 6.5, 6.5, 7. The weights of the seventh stay."""
    best = BestModelSaver(tmp_path / "model.pt", score="mae", smoothing=smoothing)
    for iteration, value in enumerate(NOISY, 1):
        validate(best, engine, iteration, {"mae": value})
    assert weight(best.path) == winner == best.best_iteration
    record = json.loads((tmp_path / "model.json").read_text())
    assert record["metrics"]["mae"] == NOISY[winner - 1] and record["val_smoothing"] == smoothing
    assert record["score"] == {1: 2.0, 3: 6.5}[smoothing]


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize(
    ("scores", "winner", "score"),
    [
        ([1.0], 1, 1.0),
        ([1.0, 8.0], 2, 8.0),  # shorter than the window: the last
        ([1.0, 8.0, 7.0], 3, 7.0),
        ([1.0, 9.0, 8.0], 3, 8.0),  # the window is full: its median
        ([1.0, 8.0, 9.0], 3, 9.0),  # or the last score, which is worse
        ([1.0, 8.0, 9.0, 7.0], 4, 8.0),
        ([8.0, 7.0, 6.0, 90.0, 6.5], 5, 6.5),  # an unlucky one does not win by those before it
        ([6.0, 5.0, 9.2, 8.9, 4.7], 5, 8.9),  # as good by its median, better by itself
        ([1.0, 8.0, 9.0, 7.0, 6.0], 5, 7.0),
        ([1.0, 8.0, math.nan, math.inf], 2, 8.0),  # what is no number fills nothing and replaces nothing
        ([math.nan, 8.0, math.nan], 2, 8.0),
        ([1.0, math.nan, 8.0, 9.0], 4, 9.0),
    ],
)
def test_a_lucky_first_score_does_not_stay(
    tmp_path: Path, engine: Any, mode: str, scores: list[float], winner: int, score: float
) -> None:
    sign = 1 if mode == "min" else -1
    best = BestModelSaver(tmp_path / "model.pt", score="mae", mode=mode, smoothing=3)
    for iteration, value in enumerate(scores, 1):
        validate(best, engine, iteration, {"mae": sign * value})
    assert weight(best.path) == winner == best.best_iteration and best.best_score == sign * score


@pytest.mark.parametrize("stop", [1, 2, 6, 7, 8])
def test_a_resumed_run_smooths_as_if_it_had_not_stopped(tmp_path: Path, engine: Any, stop: int) -> None:
    def best() -> BestModelSaver:
        return BestModelSaver(tmp_path / "model.pt", score="mae", smoothing=3)

    first, second = best(), best()
    for iteration, value in enumerate(NOISY[:stop], 1):
        validate(first, engine, iteration, {"mae": value})
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for iteration, value in enumerate(NOISY[stop:], stop + 1):
        validate(second, engine, iteration, {"mae": value})
    assert second.state_dict() == {
        "best_score": 6.5,
        "best_own": 6.0,
        "best_iteration": 7,
        "recent": [6.0, 30.0, 7.0],
        "names": ["mae"],
    }
    assert weight(second.path) == 7


def test_scores_of_another_metric_are_not_compared(
    tmp_path: Path, engine: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A run begun when models were chosen by another extractor, or before the names were stored."""
    old = BestModelSaver(tmp_path / "model.pt")
    validate(old, engine, 10, {"fid_randvgg": 1.0})
    without_names = {name: old.state_dict()[name] for name in ("best_score", "best_iteration")}
    for number, state in enumerate([old.state_dict(), without_names]):
        best = BestModelSaver(tmp_path / "model.pt")
        best.load_state_dict(state)
        assert validate(best, engine, 20 + number, {"fid_gridvgg": 50.0, "ssim": 0.1})
        assert weight(best.path) == 20 + number and best.best_score == 100.0
        assert not validate(best, engine, 30, {"fid_gridvgg": 51.0})  # the same FID, whatever else
    assert caplog.text.count("the metric has changed") == 2


def test_nan_is_kept_only_until_there_is_a_number(tmp_path: Path, engine: Any) -> None:
    best = BestModelSaver(tmp_path / "model.pt", score="mae")
    kept = [
        validate(best, engine, i, {"mae": v})
        for i, v in [(1, math.nan), (2, math.nan), (3, 9.0), (4, math.nan)]
    ]
    assert kept == [True, False, True, False]


def test_bad_settings_are_named(tmp_path: Path, engine: Any) -> None:
    with pytest.raises(UserError, match="no metric 'fid'; validation gave mae"):
        BestModelSaver(tmp_path / "model.pt", score="fid").update(engine, {"mae": 1.0})
    with pytest.raises(UserError, match="network 'generator'; it has G"):
        BestModelSaver(tmp_path / "model.pt", "generator", score="mae").update(engine, {"mae": 1.0})
    with pytest.raises(UserError, match="smoothing 0: give 1 or more"):
        BestModelSaver(tmp_path / "model.pt", smoothing=0)
    with pytest.raises(UserError, match="'lowest' is neither"):
        BestModelSaver(tmp_path / "model.pt", mode="lowest")


def test_compiled_and_channels_last_networks_give_plain_tensors() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    layered = nn.Sequential(torch.compile(network[0]), network[1]).to(memory_format=torch.channels_last)
    state = flat_state_dict(torch.compile(layered))
    assert list(state) == list(network.state_dict())
    assert all(value.is_contiguous() and not value.requires_grad for value in state.values())
    network.load_state_dict(state)


def test_the_copy_does_not_follow_the_training() -> None:
    network = nn.Conv2d(1, 1, 1)
    state = flat_state_dict(network)
    before = float(state["weight"])
    with torch.no_grad():
        network.weight.add_(1)
    assert float(state["weight"]) == before


def test_faithfulness_decides_between_equal_fids_and_outweighs_a_small_gain() -> None:
    ignores_lesions = {"fid_gridvgg": 9.0, "lesion_faithfulness": 0.1}
    draws_lesions = {"fid_gridvgg": 10.0, "lesion_faithfulness": 0.9}
    assert fid_then_faithfulness(draws_lesions) == pytest.approx(11.0)
    assert fid_then_faithfulness(ignores_lesions) == pytest.approx(17.1)


def test_fid_decides_between_equally_faithful_models() -> None:
    assert fid_then_faithfulness({"fid_x": 8.0, "lesion_faithfulness": 0.5}) == pytest.approx(12.0)


def test_structures_count_as_lesions_do() -> None:
    assert fid_then_faithfulness({"fid_x": 8.0, "structure_faithfulness": 0.25}) == pytest.approx(14.0)


@pytest.mark.parametrize(("faithfulness", "factor"), [(1.7, 1), (-3, 2), (math.nan, 2), (None, 2)])
def test_bounds(faithfulness: float | None, factor: float) -> None:
    metrics = {"fid_x": 5.0} | ({} if faithfulness is None else {"lesion_faithfulness": faithfulness})
    assert fid_then_faithfulness(metrics) == 5.0 * factor


def test_no_fid() -> None:
    with pytest.raises(UserError, match=r"needs a metric fid\*; validation gave ssim"):
        fid_then_faithfulness({"ssim": 0.5})


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


def test_weights_of_another_network_are_named(tmp_path: Path) -> None:
    save(tmp_path / "model.pt", {"layer.weight": torch.zeros(3, 2)})
    (tmp_path / "model.json").write_text('{"network": {"target": "common.networks.generators.Spade"}}')
    with pytest.raises(UserError, match="fits network G: no Linear, but a Spade; add the configs"):
        load_pretrained({"G": filled(1)}, tmp_path / "model.pt", "G")
