"""Collective calls: alone they change nothing; two processes train as one and stay equal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing
from torch import nn
from torch.utils.data import DataLoader

from common.data.loaders import InfiniteBatchSampler
from common.losses.adversarial import adversarial_loss
from common.networks.discriminators import DiscriminatorOutput
from common.training import distributed
from common.training.precision import Precision
from common.training.steps import DiscriminatorStep, GeneratorStep
from common.training.trainer import MultiStepTrainer, WithLatent, average_gradients
from tests.common.training.toy import ToyPairs


def test_alone_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    distributed.start("cpu")
    assert not torch.distributed.is_initialized() and distributed.is_main()
    assert (distributed.rank(), distributed.ranks()) == (0, 1)
    assert distributed.any_rank(True) is True and distributed.any_rank(False) is False
    tensor = torch.tensor([1.0, 2.0])
    assert distributed.average(tensor) is tensor and tensor.tolist() == [1.0, 2.0]
    assert distributed.gather({"a": 1}) == [{"a": 1}]
    state = torch.get_rng_state()
    distributed.part_random_numbers()
    assert torch.equal(torch.get_rng_state(), state)
    distributed.barrier()
    distributed.stop()


def test_a_process_takes_the_device_it_is_given_or_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert distributed.local_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert distributed.local_device() == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert distributed.local_device() == torch.device("cuda", 3)


def in_process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    torch.save({"calls": calls(rank), "training": trained(rank)}, Path(folder) / f"{rank}.pt")
    distributed.stop()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes found."""
    folder = tmp_path_factory.mktemp("processes")
    torch.multiprocessing.spawn(in_process, args=(str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


def calls(rank: int) -> dict[str, Any]:
    parameters = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1, 3)), nn.Parameter(torch.zeros(1))]
    parameters[0].grad = torch.tensor([1.0, 2.0]) * (rank + 1)
    parameters[1].grad = torch.full((1, 3), 4.0 * rank)
    average_gradients(parameters)
    torch.manual_seed(rank)
    norm = nn.BatchNorm1d(1)
    norm(torch.randn(4, 1))
    own = norm.running_mean.clone()
    distributed.average_all(norm.buffers())
    torch.manual_seed(5)
    distributed.part_random_numbers()
    return {
        "gradients": [p.grad for p in parameters],
        "any": [distributed.any_rank(rank == 1), distributed.any_rank(False)],
        "gathered": distributed.gather(rank * 10),
        "main": distributed.is_main(),
        "own": own,
        "running_mean": norm.running_mean,
        "batches": int(norm.num_batches_tracked),
        "noise": torch.rand(1),
    }


def trained(rank: int) -> dict[str, Any]:
    torch.manual_seed(rank)  # other first weights, until they are shared
    generator = nn.Sequential(nn.Linear(3, 256), nn.BatchNorm1d(256), nn.Tanh(), nn.Unflatten(1, (1, 16, 16)))
    networks = {"G": generator, "D": Flat()}
    loss, inputs = adversarial_loss("wasserstein"), ("latent",)
    trainer = MultiStepTrainer(
        max_epochs=2,
        train_data_loader=DataLoader(
            ToyPairs(), batch_sampler=InfiniteBatchSampler(8, 2, rank=rank, ranks=2)
        ),
        networks=networks,
        optimizers={name: torch.optim.Adam(network.parameters(), 1e-2) for name, network in networks.items()},
        steps=[
            DiscriminatorStep(loss, inputs, condition=None, penalty=10.0),
            GeneratorStep(loss, inputs=inputs, condition=None),
        ],
        precision=Precision("cpu"),
        prepare_batch=WithLatent(3),
    )
    trainer.run()
    return {
        "weights": [tensor for network in networks.values() for tensor in network.state_dict().values()],
        "logs": trainer.state.logs,
        "latent": trainer.state.batch["latent"],
        "random": trainer.training_state()["rng"][rank]["torch"],
        "states": len(trainer.training_state()["rng"]),
    }


class Flat(nn.Module):
    """A critic of one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(256, 1)

    def forward(self, image: torch.Tensor, condition: torch.Tensor | None = None) -> Any:
        return DiscriminatorOutput([self.linear(image.flatten(1))], [[]])


@pytest.mark.slow
def test_collective_calls_of_two_processes(results: list[dict[str, Any]]) -> None:
    first, second = (result["calls"] for result in results)
    for result in (first, second):
        assert result["gradients"][0].tolist() == [1.5, 3.0] and result["gradients"][2] is None
        assert result["gradients"][1].tolist() == [[2.0, 2.0, 2.0]]
        assert result["any"] == [True, False] and result["gathered"] == [0, 10] and result["batches"] == 1
        torch.testing.assert_close(result["running_mean"], (first["own"] + second["own"]) / 2)
    assert first["main"] and not second["main"] and not torch.equal(first["own"], second["own"])
    torch.manual_seed(5)
    assert torch.equal(first["noise"], torch.rand(1)) and not torch.equal(first["noise"], second["noise"])


@pytest.mark.slow
def test_two_processes_train_equal_networks_on_noise_of_their_own(results: list[dict[str, Any]]) -> None:
    first, second = (result["training"] for result in results)
    assert all(torch.equal(a, b) for a, b in zip(first["weights"], second["weights"], strict=True))
    assert first["logs"] == second["logs"] and first["states"] == 2
    assert not torch.equal(first["latent"], second["latent"])
    assert not torch.equal(first["random"], second["random"])
