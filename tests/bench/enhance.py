"""CycleGAN's generator (width 64, nine blocks) at 256 x 256, against calling the network as it is."""

from __future__ import annotations

import torch
from torch import nn

from common.inference.memory import keep_freed_memory
from common.inference.prepare_batch import PrecisionInferer
from common.networks.fast_resnet import fast
from common.networks.generators import ResnetGenerator
from common.training.precision import Precision
from tests.bench.harness import Result, Work, alternate, benchmark, seconds

SIZE, BATCH, REPEATS = 256, 4, 5
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@benchmark("enhance")
def enhance() -> Result:
    """As enhance.yaml does it (the device's own type and channels last where they are faster, else float32
    with fewer products, freed memory kept) against float32, eager, contiguous."""
    torch.set_num_threads(2)
    keep_freed_memory()
    images = torch.rand(BATCH, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    ours, baseline = our_enhancement(images), plain_enhancement(images)
    ours(), baseline()
    quick, slow = alternate(lambda: seconds(ours), lambda: seconds(baseline), REPEATS)
    return Result("enhance", slow / quick, 1.6, BATCH / quick, BATCH / slow, "images/s", REPEATS)


def network() -> nn.Module:
    """The published generator (11.4 M weights), always with the same ones."""
    torch.manual_seed(0)
    return ResnetGenerator(width=64, blocks=9).eval()


def our_enhancement(images: torch.Tensor) -> Work:
    """Through the inferer of enhance.yaml."""
    precision = Precision(DEVICE, amp=True, channels_last=True)
    net, infer = precision.prepare(network()), PrecisionInferer(precision)
    if precision.dtype is torch.float32:
        net = fast(net, (SIZE, SIZE))

    def work() -> None:
        infer(images.to(DEVICE), net).cpu()

    return work


def plain_enhancement(images: torch.Tensor) -> Work:
    """As one would write it, without a record for gradients."""
    net = network().to(DEVICE)

    def work() -> None:
        with torch.no_grad():
            net(images.to(DEVICE)).cpu()

    return work
