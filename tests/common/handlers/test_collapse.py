from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from torch import Tensor, nn

from common.errors import UserError
from common.handlers.collapse import ModeCollapse

IMAGES = torch.from_numpy(np.random.default_rng(0).uniform(-0.9, 0.9, (40, 1, 16, 16))).float()
BATCH = {"latent": torch.arange(40.0)[:, None], "image": IMAGES}


class Corner:
    """Nine pixels as features."""

    name = "corner"
    dimension = 9

    def __call__(self, images: Tensor) -> Tensor:
        return images[:, 0, :3, :3].flatten(1)


class Modes(nn.Module):
    """Makes image number (latent modulo modes) of the real ones; in training it adds noise."""

    def __init__(self) -> None:
        super().__init__()
        self.modes = nn.Parameter(torch.tensor(40.0), requires_grad=False)

    def forward(self, latent: Tensor) -> Tensor:
        images = IMAGES[(latent[:, 0] % self.modes).long()]
        return images + torch.rand(images.shape) * self.training


class Schedule:
    """Attached first, it sets how many modes the generator has in an epoch; records what was logged."""

    def __init__(self, modes: dict[int, int]) -> None:
        self.modes, self.found = modes, list[dict[str, float]]()

    def attach(self, engine: Any) -> None:
        engine.networks = {"G": Modes()}
        engine.add_event_handler(Events.EPOCH_STARTED, self._set)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._note)

    def _set(self, engine: Any) -> None:
        engine.networks["G"].modes.data.fill_(self.modes.get(engine.state.epoch, 40))

    def _note(self, engine: Engine) -> None:
        state: Any = engine.state
        self.found.append({name: value for name, value in state.logs.items() if "loss" not in name})


def monitor(**changes: Any) -> ModeCollapse:
    return ModeCollapse(BATCH, Corner(), **({"interval": 1, "patience": 2, "grace": 0} | changes))


def test_measures_of_the_real_set_itself_and_of_one_image(trainer: Any, plain_losses: Any) -> None:
    schedule = Schedule({2: 1})
    trainer(plain_losses, [schedule, monitor()]).train(8)
    equal, collapsed = schedule.found
    assert [equal[f"diversity_{name}"] for name in ("images", "features", "modes")] == [1, 1, 1]
    assert collapsed["diversity_images"] == pytest.approx(0, abs=1e-5)
    assert collapsed["diversity_features"] == 0 and collapsed["modes"] == pytest.approx(1 / np.log(2))
    assert collapsed["diversity_modes"] == pytest.approx(collapsed["modes"] / equal["modes"])


def test_three_modes_are_few_though_they_differ(
    trainer: Any, plain_losses: Any, caplog: pytest.LogCaptureFixture
) -> None:
    schedule = Schedule({2: 3, 3: 3, 4: 3, 6: 3, 7: 3})
    trainer(plain_losses, [schedule, monitor()]).train(32)
    assert [entry["collapse_events"] for entry in schedule.found] == [0, 0, 1, 1, 1, 1, 2, 2]
    first, second = caplog.messages
    assert first.startswith("mode collapse at iteration 12, epoch 3: diversity of modes 0.0")
    assert first.endswith("(real images: 1), low at 2 looks in a row") and "epoch 7" in second


def test_bounds_and_interval_are_settings(trainer: Any, plain_losses: Any) -> None:
    schedule = Schedule({2: 3, 3: 3, 4: 3})
    handler = monitor(bounds={"modes": 0.001}, interval=2, patience=1)
    trainer(plain_losses, [schedule, handler]).train(16)
    assert [bool(entry) for entry in schedule.found] == [False, True, False, True]
    assert handler.alarm.events == 0
    with pytest.raises(UserError, match="no measure 'mode'"):
        monitor(bounds={"mode": 0.1})


@pytest.mark.parametrize(("sound", "events"), [(9, [0, 0, 0, 0, 1]), (1, [0, 0, 1, 1, 1])])
def test_a_fresh_generator_has_time_to_become_diverse_but_not_to_collapse(
    trainer: Any, plain_losses: Any, sound: int, events: list[int]
) -> None:
    schedule = Schedule({epoch: 1 for epoch in range(1, 6) if epoch != sound})
    trainer(plain_losses, [schedule, monitor(grace=3)]).train(20)
    assert [entry["collapse_events"] for entry in schedule.found] == events


def test_stop_ends_the_run(trainer: Any, plain_losses: Any) -> None:
    engine = trainer(plain_losses, [Schedule({1: 1, 2: 1}), monitor(stop=True)]).train(16)
    assert engine.state.iteration == 8


def test_training_is_left_as_it_was(trainer: Any, plain_losses: Any) -> None:
    schedule, again = Schedule({}), Schedule({})
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    engine = trainer(plain_losses, [schedule, monitor()]).train(8)
    assert torch.equal(torch.rand(4), expected) and engine.networks["G"].training
    trainer(plain_losses, [again, monitor()]).train(8)
    assert again.found == schedule.found


def test_the_average_is_looked_at_and_classes_are_fed(trainer: Any, plain_losses: Any) -> None:
    class Conditional(Modes):
        def forward(self, latent: Tensor, condition: Tensor | None = None) -> Tensor:
            assert condition is not None
            return super().forward(latent + condition[:, None])

    class Networks:
        def attach(self, engine: Any) -> None:
            engine.networks = {"G": nn.Linear(1, 1), "G_ema": Conditional()}

    batch = {**BATCH, "class": torch.zeros(40, dtype=torch.int64)}
    handler = ModeCollapse(batch, Corner(), ("latent", "class"), interval=1)
    logs = trainer(plain_losses, [Networks(), handler]).train(4).state.logs
    assert logs["diversity_features"] == 1


@pytest.mark.parametrize("cut", [4, 8, 12])
def test_resumed_goes_on_exactly(trainer: Any, plain_losses: Any, cut: int) -> None:
    collapses, parts = {2: 1, 3: 1}, [monitor(), monitor(), monitor()]
    schedules = [Schedule(collapses) for _ in parts]
    trainer(plain_losses, [schedules[0], parts[0]]).train(16)
    trainer(plain_losses, [schedules[1], parts[1]]).train(cut)
    buffer = io.BytesIO()
    torch.save(parts[1].state_dict(), buffer)
    buffer.seek(0)
    parts[2].load_state_dict(torch.load(buffer, weights_only=True))
    trainer(plain_losses, [schedules[2], parts[2]], start=cut).train(16)
    assert schedules[1].found + schedules[2].found == schedules[0].found
    assert parts[2].state_dict() == parts[0].state_dict() and parts[2].alarm.events == 1
