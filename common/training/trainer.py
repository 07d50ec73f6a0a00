"""The trainer of all models: networks, optimisers and steps by name, nothing about images."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import takewhile
from typing import Any

import torch
from ignite.engine import Events
from monai.engines import Trainer
from monai.engines.utils import IterationEvents
from monai.utils.enums import CommonKeys as Keys
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader

from common.data.loaders import InfiniteBatchSampler, make_loader
from common.errors import UserError
from common.networks.state import describe_mismatch, frozen
from common.rng import restore_rng, rng_state
from common.training import distributed
from common.training.optimisation import WeightAverage, apply_schedule, options_of, set_options
from common.training.precision import Precision
from common.training.shape_check import warn_of_running_averages
from common.training.steps import Batch, Context, Step


class BatchGroups:
    """Groups an endless loader's batches: one for each repeat of an iteration's most repeated step."""

    def __init__(self, loader: DataLoader, size: int) -> None:
        self.loader, self.size = loader, size

    def __iter__(self) -> Iterator[list[Any]]:
        state = torch.get_rng_state()
        batches = iter(self.loader)  # draws a seed for its workers, which a resumed run must not see
        torch.set_rng_state(state)
        while True:
            yield [next(batches) for _ in range(self.size)]


def endless_loader(
    dataset: Any, batch_size: int, seed: int = 0, num_workers: int = 0, device: str | torch.device = "cpu"
) -> DataLoader[dict[str, Any]]:
    """Batches of shuffled epochs without end, this process's share of them: what `MultiStepTrainer` takes.

    Args:
        batch_size: samples of this process in a batch.
        seed: of the order, which depends on it and the epoch alone.
        device: where the batches go: memory is pinned for GPUs.

    Example:
        >>> loader = endless_loader([{"sample": number} for number in range(6)], batch_size=2)
        >>> loader.batch_sampler.batches_per_epoch
        3
    """
    sampler = InfiniteBatchSampler(
        len(dataset), batch_size, seed, rank=distributed.rank(), ranks=distributed.ranks()
    )
    return make_loader(dataset, sampler, num_workers, torch.device(device).type == "cuda")


def prepare_batch(batch: Batch, precision: Precision) -> dict[str, Any]:
    """Moves every tensor of the batch to the device and layout."""
    return {
        name: precision.images(value) if torch.is_tensor(value) else value for name, value in batch.items()
    }


class WithLatent:
    """A ``prepare_batch`` that adds ``latent`` (B, size), drawn from N(0, I), for generators of noise.

    It draws from torch's generator of the device, whose state the resume file holds; each process draws its
    own.

    Example:
        >>> WithLatent(100)({"image": torch.zeros(4, 1, 8, 8)}, Precision("cpu"))["latent"].shape
        torch.Size([4, 100])
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, batch: Batch, precision: Precision) -> dict[str, Any]:
        prepared = prepare_batch(batch, precision)
        count = len(prepared["image"])
        return {**prepared, "latent": torch.randn(count, self.size, device=precision.device)}


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Replaces each gradient by its mean over all processes, with one collective call.

    Used instead of ``DistributedDataParallel``, which cannot differentiate through ``torch.autograd.grad``
    (gradient penalties) and requires one forward per backward; networks keep their names in the state_dict.
    """
    distributed.average_all(p.grad for p in parameters if p.grad is not None)


STATE_FORMAT = 1


def check_setting(saved: Mapping[str, Any], present: Mapping[str, Any]) -> None:
    """Raises `UserError` naming each setting that differs from the saved run's."""
    changed = [
        f"{name} was {saved.get(name)}, is {value}"
        for name, value in present.items()
        if saved.get(name) != value
    ]
    if changed:
        raise UserError(
            f"cannot resume: {'; '.join(changed)}; use the run's settings or another --output_dir"
        )


def load_each(kind: str, parts: Mapping[str, Any], states: Mapping[str, Any]) -> None:
    """Loads each state into the part of the same name.

    Args:
        kind: what the parts are, for the message.
    Raises:
        UserError: other names, or a state that does not fit.
    """
    if set(parts) != set(states):
        raise UserError(
            f"cannot resume: {kind} were {sorted(states)}, are {sorted(parts)}; use the run's configs"
        )
    for name, part in parts.items():
        try:
            part.load_state_dict(states[name])
        except (RuntimeError, ValueError) as error:
            why = describe_mismatch(part, states[name]) if isinstance(part, nn.Module) else ""
            raise UserError(
                f"cannot resume: {kind} '{name}' differ from the saved ones{f' ({why})' if why else ''}; "
                "use the run's configs"
            ) from error


logger = logging.getLogger(__name__)


class MultiStepTrainer(Trainer):
    """Trains any number of networks with any number of optimisers by a list of steps.

    An iteration runs the steps in order; each repeat of a step gets a new batch. Afterwards ``state.logs``
    holds every named loss and measure (means over processes) and the sum ``loss``, and ``state.output`` the
    last batch's ``pred``, ``image``, ``label`` and losses. MONAI's iteration events fire, so that
    postprocessing and MONAI's handlers work. MONAI's own ``AdversarialTrainer`` has two networks, one update
    of each, and no exact resume.

    Args:
        max_epochs: passes over the training samples.
        train_data_loader: see `endless_loader`.
        networks, optimizers: by name; the steps refer to the names.
        steps: see `common.training.steps`.
        precision: device, mixed precision, layout, compilation.
        average: moving averages by the averaged network's name; ``networks`` gets them as ``NAME_ema``.
        schedulers: learning-rate schedules by name, stepped after every epoch.
        prepare_batch: called as ``(batch, precision) -> dict`` of tensors on the device.
        predicts: name of the network whose output is ``state.output["pred"]``.
        train_handlers: attached in order (see `common.handlers.default_handlers`), on every process.
    Raises:
        UserError: a step names an unknown network or optimiser, two steps have one name, or a loss does not
            fit its networks (`common.training.shape_check.check_critic`).

    Example:
        >>> from common.training.steps import SupervisedStep
        >>> data = [{"image": torch.zeros(1), "label": torch.ones(1)} for _ in range(4)]
        >>> network = nn.Linear(1, 1)
        >>> trainer = MultiStepTrainer(
        ...     max_epochs=2,
        ...     train_data_loader=endless_loader(data, batch_size=2),
        ...     networks={"G": network},
        ...     optimizers={"G": torch.optim.SGD(network.parameters(), lr=0.1)},
        ...     steps=[SupervisedStep({"mse": nn.MSELoss()})],
        ...     precision=Precision("cpu"),
        ... )
        >>> trainer.total_iterations
        4
    """

    def __init__(
        self,
        max_epochs: int,
        train_data_loader: DataLoader,
        networks: Mapping[str, nn.Module],
        optimizers: Mapping[str, Optimizer],
        steps: Sequence[Step],
        precision: Precision,
        average: Mapping[str, WeightAverage] | None = None,
        schedulers: Mapping[str, LRScheduler] | None = None,
        prepare_batch: Callable[[Batch, Precision], dict[str, Any]] = prepare_batch,
        predicts: str = "G",
        postprocessing: Callable | None = None,
        key_train_metric: dict | None = None,
        train_handlers: Sequence[Any] | None = None,
    ) -> None:
        self.stream = _stream_of(train_data_loader)
        self.steps = list(steps)
        self.group = max(step.repeat for step in self.steps)
        self.trained = sorted({name for step in self.steps for name in step.trains})
        self.penalised = {name for step in self.steps for name in step.penalised}
        self.networks = {name: self._prepared(name, network, precision) for name, network in networks.items()}
        self.optimizers, self.schedulers = dict(optimizers), dict(schedulers or {})
        self.precision, self.predicts, self.prepare = precision, predicts, prepare_batch
        self._check()
        super().__init__(
            device=precision.device,
            max_epochs=max_epochs,
            data_loader=BatchGroups(train_data_loader, self.group),
            epoch_length=max(1, self.stream.batches_per_epoch // self.group),
            postprocessing=postprocessing,
            key_metric=key_train_metric,
            decollate=postprocessing is not None,
        )
        self.state.logs = {}
        self._average(dict(average or {}))
        self.add_event_handler(Events.EPOCH_COMPLETED, self._step_schedulers)
        self.train_handlers = list(train_handlers or [])
        self._register_handlers(self.train_handlers)

    def run(self) -> None:  # type: ignore[override]
        """Trains up to ``max_epochs``; a finished run logs one line and does nothing."""
        if self.state.iteration >= self.total_iterations:
            logger.info(f"already trained for {self.state.epoch} epochs; raise --max_epochs to go on")
            return
        distributed.share_weights(self.networks.values())
        if self.state.iteration == 0:
            distributed.part_random_numbers()
        super().run()

    @property
    def total_iterations(self) -> int:
        """Iterations of the whole run."""
        return int(self.state.max_epochs * self.state.epoch_length)

    def _iteration(self, engine: Any, batchdata: Any) -> dict[str, Any]:
        batches = [self.prepare(batch, self.precision) for batch in batchdata]
        context, logs = Context(self.networks), {}
        for name in self.trained:
            self.networks[name].train()
        updates = [(step, k) for step in self.steps for k in range(self.group - step.repeat, self.group)]
        for index, (step, number) in enumerate(updates):
            context.use(batches[number])
            context.learning = learning(updates[index:])
            logs.update(self._update(step, context))
        self.precision.update()
        distributed.average_all(b for name in self.trained for b in self.networks[name].buffers())
        logs.update(context.measures)
        engine.state.batch = dict(context.batch)
        engine.state.output = self._output(context, logs)
        engine.state.logs = _numbers(logs)
        engine.fire_event(IterationEvents.MODEL_COMPLETED)
        return engine.state.output

    def _update(self, step: Step, context: Context) -> dict[str, Tensor]:
        optimizer = self.optimizers[step.optimizer]
        optimizer.zero_grad(set_to_none=True)
        with frozen(self.networks[name] for name in step.freezes):
            with self.precision.autocast():
                losses = step.losses(context)
                total = step.total(losses)
            self.fire_event(IterationEvents.FORWARD_COMPLETED)
            self.fire_event(IterationEvents.LOSS_COMPLETED)
            self.precision.backward(total)
        self.fire_event(IterationEvents.BACKWARD_COMPLETED)
        # Averaged while still scaled, so that all processes see the same overflow.
        average_gradients(p for group in optimizer.param_groups for p in group["params"])
        self.precision.step(optimizer)
        context.forget(step.trains)
        return {**{k: v.detach() for k, v in losses.items()}, f"{step.name}_loss": total.detach()}

    def _output(self, context: Context, logs: dict[str, Tensor]) -> dict[str, Any]:
        logs[str(Keys.LOSS)] = torch.stack([logs[f"{step.name}_loss"].float() for step in self.steps]).sum()
        kept = {str(name): context.batch[name] for name in (Keys.IMAGE, Keys.LABEL) if name in context.batch}
        return {**kept, **logs, str(Keys.PRED): context.last_outputs.get(self.predicts)}

    def _prepared(self, name: str, network: nn.Module, precision: Precision) -> nn.Module:
        return precision.prepare(network, name, penalised=name in self.penalised)

    def _check(self) -> None:
        names = [step.name for step in self.steps]
        if len(set(names)) < len(names):
            raise UserError(f"steps {names}: two have the same name; name them apart")
        for step in self.steps:
            missing = {*step.trains, *step.freezes} - set(self.networks)
            missing |= {step.optimizer} - set(self.optimizers)
            if missing:
                raise UserError(f"step {step.name}: no network or optimiser called {sorted(missing)}")
            step.check(self.networks, self.optimizers[step.optimizer])
        if self.predicts in self.trained:
            warn_of_running_averages(self.networks[self.predicts], self.stream.batch_size)

    def _average(self, averages: dict[str, WeightAverage]) -> None:
        for name, average in averages.items():
            average.attach(self, name, self._images(name))
            if average.network is not self.networks[name]:
                self.networks[f"{name}_ema"] = self.precision.prepare(average.network, f"{name}_ema")

    def _images(self, network: str) -> int:
        """Returns the number of images that a network learns from in an iteration, over all processes."""
        updates = sum(step.repeat for step in self.steps if network in step.trains)
        return self.stream.batch_size * self.stream.ranks * updates

    def _step_schedulers(self) -> None:
        for scheduler in self.schedulers.values():
            scheduler.step()

    def training_state(self) -> dict[str, Any]:
        """Returns everything that determines the rest of the run but for handlers, in tensors and numbers.

        A collective call: every process must make it.
        """
        return {
            "format": STATE_FORMAT,
            "iteration": self.state.iteration,
            "epoch": self.state.epoch,
            "setting": self._setting(),
            **{
                kind: {name: part.state_dict() for name, part in parts.items()}
                for kind, parts in self._parts().items()
            },
            "scaler": self.precision.scaler.state_dict(),
            "rng": distributed.gather(rng_state()),
        }

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Restores the run to where `training_state` was taken.

        Learning rates, weight decay and betas are those that the optimisers have now.

        Raises:
            UserError: the state belongs to other data, batch size, seed, precision, networks or processes.
        """
        check_setting(state["setting"], self._setting())
        options = {name: options_of(optimizer) for name, optimizer in self.optimizers.items()}
        for kind, parts in self._parts().items():
            load_each(kind, parts, state[kind])
        for name, optimizer in self.optimizers.items():
            set_options(optimizer, options[name])
        for scheduler in self.schedulers.values():
            apply_schedule(scheduler)
        self.precision.scaler.load_state_dict(state["scaler"])
        restore_rng(state["rng"][distributed.rank()])
        lengths = {"epoch_length": self.state.epoch_length, "max_epochs": self.state.max_epochs}
        self.load_state_dict({"iteration": state["iteration"], **lengths})
        self.stream.position = state["iteration"] * self.group

    def _parts(self) -> dict[str, Mapping[str, Any]]:
        return {
            "networks": self.networks,
            "optimizers": self.optimizers,
            "schedulers": self.schedulers,
            "steps": {step.name: step for step in self.steps},
        }

    def _setting(self) -> dict[str, Any]:
        """Returns the settings in which a resumed run must equal the saved one."""
        return {
            "samples": self.stream.length,
            "batch_size": self.stream.batch_size,
            "seed": self.stream.seed,
            "processes": self.stream.ranks,
            "batches per iteration": self.group,
            "precision": str(self.precision.dtype),
        }


def learning(updates: Sequence[tuple[Step, int]]) -> frozenset[str]:
    """Returns the networks that the first update (step, batch number) or later ones on its batch train.

    Only outputs of these networks need a graph: outputs are dropped with their batch.
    """
    _, number = updates[0]
    same = takewhile(lambda update: update[1] == number, updates)
    return frozenset(name for step, _ in same for name in step.trains)


def _stream_of(loader: DataLoader) -> InfiniteBatchSampler:
    stream = loader.batch_sampler
    if not isinstance(stream, InfiniteBatchSampler):
        raise UserError(
            "train_data_loader: its batch_sampler must be a common.data.loaders.InfiniteBatchSampler"
        )
    return stream


def _numbers(logs: Mapping[str, Tensor]) -> dict[str, float]:
    """Returns device scalars as numbers, averaged over processes, with one transfer."""
    values = distributed.average(torch.stack([value.detach().float() for value in logs.values()]))
    return dict(zip(logs, values.tolist(), strict=True))


AdversarialTrainer = MultiStepTrainer  # its name in configs of earlier versions
