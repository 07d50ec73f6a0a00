"""Drawing samples with the paper's generator, 128 x 128, against calling the network as it is."""

from __future__ import annotations

import torch

from bundles.dcgan_covid.networks import DcganGenerator
from common.inference.prepare_batch import PrecisionInferer
from common.inference.sampling import BLOCK, latents
from common.training.precision import Precision
from tests.bench.harness import Result, Work, alternate, benchmark, seconds

LATENT, SAMPLES, BATCH, REPEATS = 100, 256, 64, 5
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


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
        for _ in range(0, SAMPLES, BATCH):
            net(torch.randn(BATCH, LATENT, device=DEVICE)).detach().cpu()

    return work
