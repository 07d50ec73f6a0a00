"""The paper's net at 256 x 256: a step against a plain loop, mixed precision, the loader that feeds it."""

from __future__ import annotations

import logging
import statistics
import tempfile
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, l1_loss
from torch.utils.data import DataLoader, Dataset

from bundles.pix2pix_covid.networks import UnetGenerator
from common.data.layouts import find_samples
from common.data.loaders import InfiniteBatchSampler, SampleIndex, make_loader
from common.data.phantoms.writing import PhantomSettings, write_phantoms
from common.losses.adversarial import adversarial_loss
from common.losses.reconstruction import ConditionWeighted
from common.networks.discriminators import ConditionalPatchDiscriminator
from common.networks.state import init_weights
from common.rng import make_rng
from common.training.precision import Precision
from common.training.steps import DiscriminatorStep, GeneratorStep
from common.training.trainer import MultiStepTrainer
from tests.bench.harness import NotMeasurable, Result, Work, alternate, benchmark, seconds
from tests.common.data.made_sets import pair_dataset

logger = logging.getLogger(__name__)
SIZE, WIDTH, LEVELS, BATCH, LAMBDA, REPEATS, DRIFT_STEPS = 256, 64, 8, 4, 100.0, 5, 50
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@benchmark("pix2pix_step")
def pix2pix_step() -> Result:
    """The bundle's trainer (amp, channels last) against the textbook loop in float32, eager, contiguous."""
    torch.set_num_threads(2)
    ours, baseline = trainer_step(amp=True), plain_step()
    ours(), baseline()
    fast, slow = alternate(lambda: seconds(ours), lambda: seconds(baseline), REPEATS)
    if Precision(DEVICE, amp=True).dtype is torch.float32:
        print("pix2pix_step: this CPU has no bfloat16 arithmetic; ours ran in float32")
    return Result("pix2pix_step", slow / fast, 1.6, BATCH / fast, BATCH / slow, "images/s", REPEATS)


@benchmark("pix2pix_l1_drift")
def pix2pix_l1_drift() -> Result:
    """Relative difference of L1 over 50 steps, mixed precision to float32: median (goal 1 %), worst (5 %)."""
    torch.set_num_threads(2)
    if Precision(DEVICE, amp=True).dtype is torch.float32:
        raise NotMeasurable("this CPU has no bfloat16 arithmetic, amp falls back to float32")
    mixed, full = l1_course(amp=True), l1_course(amp=False)
    differences = [abs(a - b) / b for a, b in zip(mixed, full, strict=True)]
    print(f"pix2pix_l1_drift: worst of {DRIFT_STEPS} steps {max(differences):.4f} (goal 0.05)")
    median = statistics.median(differences)
    return Result("pix2pix_l1_drift", 0.01 / max(median, 1e-12), 1.0, median, 0.01, "relative", DRIFT_STEPS)


class Pairs(Dataset):
    """Made pairs of blobs: the arithmetic does not mind what it sees."""

    def __len__(self) -> int:
        return 16

    def __getitem__(self, draw: SampleIndex) -> dict[str, Tensor | int]:
        noise = make_rng(0, "bench", draw.index).normal(size=(2, SIZE, SIZE))
        image, label = torch.from_numpy(noise).float()
        return {"image": image[None].tanh(), "label": (label[None] > 1).float(), "sample": draw.index}


def networks() -> tuple[nn.Module, nn.Module]:
    """The paper's generator (54.4 M) and 70 x 70 discriminator (2.8 M), always with the same weights."""
    torch.manual_seed(0)
    critic = ConditionalPatchDiscriminator(channels=WIDTH)
    return init_weights(UnetGenerator(levels=LEVELS, ngf=WIDTH)), init_weights(critic)


def optimizers(*nets: nn.Module) -> list[torch.optim.Optimizer]:
    """Isola et al.'s Adam for each."""
    return [torch.optim.Adam(net.parameters(), 2e-4, (0.5, 0.999)) for net in nets]


def trainer(amp: bool) -> MultiStepTrainer:
    """The bundle's trainer without handlers."""
    critic, net = reversed(networks())
    first, second = optimizers(net, critic)
    loss = adversarial_loss("bce")
    return MultiStepTrainer(
        max_epochs=1,
        train_data_loader=DataLoader(Pairs(), batch_sampler=InfiniteBatchSampler(len(Pairs()), BATCH)),
        networks={"G": net, "D": critic},
        optimizers={"G": first, "D": second},
        steps=[
            DiscriminatorStep(loss, weights={"D_adversarial": 0.5}),
            GeneratorStep(loss, terms={"l1": ConditionWeighted()}, weights={"G_l1": LAMBDA}),
        ],
        precision=Precision(DEVICE, amp=amp, channels_last=True),
    )


def trainer_step(amp: bool) -> Work:
    """One iteration on a batch that is there already (the loader has its own benchmark)."""
    engine = trainer(amp)
    batch = next(iter(engine.data_loader))

    def work() -> None:
        engine._iteration(engine, batch)  # its logs are numbers: a GPU has finished when it returns

    return work


def l1_course(amp: bool) -> list[float]:
    """L1 at each of 50 steps."""
    engine = trainer(amp)
    batches: Iterator[list[dict[str, Tensor]]] = iter(engine.data_loader)
    course = []
    for _ in range(DRIFT_STEPS):
        engine._iteration(engine, next(batches))
        course.append(engine.state.logs["G_l1"])
    return course


def plain_step() -> Work:
    """Pix2pix as everybody writes it: one forward, D on real and fake, then G with D's weights fixed."""
    net, critic = (network.to(DEVICE).train() for network in networks())
    first, second = optimizers(net, critic)
    batch = next(iter(DataLoader(Pairs(), batch_sampler=InfiniteBatchSampler(len(Pairs()), BATCH))))
    image, label = batch["image"].to(DEVICE), batch["label"].to(DEVICE)

    def score(picture: Tensor, target: float) -> Tensor:
        logits = critic(picture, label).logits[0]
        return binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))

    def work() -> None:
        fake = net(label)
        critic.requires_grad_(True)
        second.zero_grad()
        (0.5 * (score(image, 1.0) + score(fake.detach(), 0.0))).backward()
        second.step()
        critic.requires_grad_(False)
        first.zero_grad()
        loss = score(fake, 1.0) + LAMBDA * l1_loss(fake, image)
        loss.backward()
        first.step()
        loss.item()

    return work


if DEVICE.type == "cuda":
    from torch.utils.flop_counter import FlopCounterMode

    @benchmark("pix2pix_gpu_share")
    def pix2pix_gpu_share() -> Result:
        """The step's arithmetic rate as a share of what the card reaches on a large bf16 matrix product."""
        step, product = trainer_step(amp=True), matrix_product(8192)
        step(), product()
        with FlopCounterMode(display=False) as counter:
            step()
        time, product_time = alternate(lambda: seconds(step), lambda: seconds(product), REPEATS)
        rate, peak = counter.get_total_flops() / time, 2 * 8192**3 / product_time
        print(f"pix2pix_gpu_share: {BATCH / time:.1f} images/s")
        return Result("pix2pix_gpu_share", rate / peak, 0.0, rate / 1e12, peak / 1e12, "TFLOP/s", REPEATS)

    def matrix_product(size: int) -> Callable[[], None]:
        """A square bf16 product, waited for."""
        first, second = (torch.randn(size, size, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))

        def work() -> None:
            torch.mm(first, second)
            torch.cuda.synchronize()

        return work


BATCHES = 50


@benchmark("loader_vs_step")
def loader_vs_step() -> Result:
    """Batches of 4 at 256 x 256 in the main process, as ``num_workers: 0`` serves them, against the step."""
    torch.set_num_threads(2)
    load, step = loading(), trainer_step(amp=True)
    load(), step()
    load_time, step_time = alternate(lambda: seconds(load), lambda: seconds(step), REPEATS)
    served, needed = BATCHES * BATCH / load_time, BATCH / step_time
    return Result("loader_vs_step", served / needed, 5.0, served, needed, "images/s", REPEATS)


def loading() -> Work:
    """Draws batches of phantom pairs."""
    with tempfile.TemporaryDirectory() as folder:
        write_phantoms(Path(folder) / "phantoms", PhantomSettings(patients=4, shape=(128, 128, 12)))
        dataset = pair_dataset(find_samples(Path(folder) / "phantoms"), SIZE)
    loader: DataLoader = make_loader(dataset, InfiniteBatchSampler(len(dataset), BATCH))

    def work() -> None:
        for _ in islice(loader, BATCHES):
            pass

    return work
