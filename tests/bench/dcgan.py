"""The paper's setting, 128 x 128: a training step against the textbook loop, and sampling."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import DataLoader, Dataset

from bundles.dcgan_covid.networks import DcganDiscriminator, DcganGenerator
from common.data.loaders import InfiniteBatchSampler, SampleIndex
from common.inference.prepare_batch import PrecisionInferer
from common.inference.sampling import BLOCK, latents
from common.losses.adversarial import adversarial_loss
from common.networks.state import init_weights
from common.rng import make_rng
from common.training.precision import Precision
from common.training.steps import DiscriminatorStep, GeneratorStep
from common.training.trainer import MultiStepTrainer, WithLatent
from tests.bench.harness import Result, Work, alternate, benchmark, seconds

SIZE, LATENT, BATCH, REPEATS = 128, 100, 50, 5
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@benchmark("dcgan_step")
def dcgan_step() -> Result:
    """The bundle's trainer (amp, channels last, fused Adam, D's weights without gradients while G learns)
    against the tutorials' loop: float32, eager, contiguous, plain Adam, D's gradients in both halves."""
    torch.set_num_threads(2)
    ours, baseline = trainer_step(), plain_step()
    ours(), baseline()
    fast, slow = alternate(lambda: seconds(ours), lambda: seconds(baseline), REPEATS)
    if Precision(DEVICE, amp=True).dtype is torch.float32:
        print("dcgan_step: this CPU has no bfloat16 arithmetic; ours ran in float32")
    return Result("dcgan_step", slow / fast, 1.5, BATCH / fast, BATCH / slow, "images/s", REPEATS)


class Images(Dataset):
    """Made images: the arithmetic does not mind what it sees."""

    def __len__(self) -> int:
        return BATCH

    def __getitem__(self, draw: SampleIndex) -> dict[str, Tensor | int]:
        noise = make_rng(0, "bench", draw.index).normal(size=(1, SIZE, SIZE))
        return {"image": torch.from_numpy(noise).float().tanh(), "sample": draw.index}


def networks() -> tuple[nn.Module, nn.Module]:
    """Generator (20.4 M) and discriminator (7.0 M), always with the same weights."""
    torch.manual_seed(0)
    return init_weights(DcganGenerator(SIZE, LATENT)), init_weights(DcganDiscriminator(SIZE))


def optimizer(network: nn.Module, fused: bool) -> torch.optim.Optimizer:
    """DCGAN's Adam."""
    return torch.optim.Adam(network.parameters(), 2e-4, (0.5, 0.999), fused=fused)


def trainer_step() -> Work:
    """One iteration of the bundle's trainer, without handlers, on a batch that is there already."""
    net, critic = networks()
    loss = adversarial_loss("bce")
    engine = MultiStepTrainer(
        max_epochs=1,
        train_data_loader=DataLoader(Images(), batch_sampler=InfiniteBatchSampler(BATCH, BATCH)),
        networks={"G": net, "D": critic},
        optimizers={"G": optimizer(net, fused=True), "D": optimizer(critic, fused=True)},
        steps=[
            DiscriminatorStep(loss, inputs=("latent",), condition=None),
            GeneratorStep(loss, inputs=("latent",), condition=None),
        ],
        precision=Precision(DEVICE, amp=True, channels_last=True),
        prepare_batch=WithLatent(LATENT),
    )
    batch = next(iter(engine.data_loader))

    def work() -> None:
        engine._iteration(engine, batch)  # its logs are numbers: a GPU has finished when it returns

    return work


def plain_step() -> Work:
    """D on real and on fake, then G through D; the next zero_grad drops what D's weights got from that."""
    net, critic = (network.to(DEVICE).train() for network in networks())
    first, second = optimizer(net, fused=False), optimizer(critic, fused=False)
    batch = next(iter(DataLoader(Images(), batch_sampler=InfiniteBatchSampler(BATCH, BATCH))))
    image = batch["image"].to(DEVICE)

    def score(picture: Tensor, target: float) -> Tensor:
        logits = critic(picture).logits[0]
        return binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))

    def work() -> None:
        fake = net(torch.randn(BATCH, LATENT, device=DEVICE))
        second.zero_grad()
        (score(image, 1.0) + score(fake.detach(), 0.0)).backward()
        second.step()
        first.zero_grad()
        loss = score(fake, 1.0)
        loss.backward()
        first.step()
        loss.item()

    return work


SAMPLES, SAMPLES_AT_ONCE = 256, 64


@benchmark("dcgan_sampling")
def dcgan_sampling() -> Result:
    """As inference does it (noise by the sample's number, amp, channels last, inference mode, blocks) against
    float32, eager, contiguous, in batches of 64."""
    torch.set_num_threads(2)
    ours, baseline = our_sampling(), plain_sampling()
    ours(), baseline()
    fast, slow = alternate(lambda: seconds(ours), lambda: seconds(baseline), REPEATS)
    if Precision(DEVICE, amp=True).dtype is torch.float32:
        print("dcgan_sampling: this CPU has no bfloat16 arithmetic; ours ran in float32")
    return Result("dcgan_sampling", slow / fast, 2.0, SAMPLES / fast, SAMPLES / slow, "images/s", REPEATS)


def network() -> DcganGenerator:
    """The generator (20.4 M), always with the same weights, in evaluation mode."""
    torch.manual_seed(0)
    return DcganGenerator(latent=LATENT).eval()


def our_sampling() -> Work:
    """Blocks of numbered samples through the inferer of inference.yaml."""
    precision = Precision(DEVICE, amp=True, channels_last=True)
    net, infer = precision.prepare(network()), PrecisionInferer(precision)

    def work() -> None:
        for first in range(0, SAMPLES, BLOCK):
            infer(latents(0, range(first, first + BLOCK), LATENT).to(DEVICE), net).cpu()

    return work


def plain_sampling() -> Work:
    """As one would write it."""
    net = network().to(DEVICE)

    def work() -> None:
        for _ in range(0, SAMPLES, SAMPLES_AT_ONCE):
            net(torch.randn(SAMPLES_AT_ONCE, LATENT, device=DEVICE)).detach().cpu()

    return work
