"""A tiny conditional GAN on made data: everything the trainer needs, in milliseconds."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from common.data.loaders import InfiniteBatchSampler, SampleIndex
from common.losses.adversarial import adversarial_loss
from common.networks.discriminators import ConditionalPatchDiscriminator
from common.rng import make_rng
from common.training.optimisation import WeightAverage
from common.training.precision import Precision
from common.training.steps import DiscriminatorStep, GeneratorStep
from common.training.trainer import MultiStepTrainer


class ToyPairs(Dataset):
    """Eight pairs; a visit adds noise that depends on (seed, epoch, index) alone, as augmentation does."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, draw: SampleIndex) -> dict[str, Any]:
        base = make_rng(0, "pair", draw.index).normal(size=(2, 16, 16))
        noise = make_rng(0, "visit", draw.epoch, draw.index).normal(size=(16, 16))
        image, label = base[0] + 0.1 * noise, base[1] > 0
        return {
            "image": torch.tensor(image[None], dtype=torch.float32).tanh(),
            "label": torch.tensor(label[None], dtype=torch.float32),
            "sample": draw.index,
        }


class ToyGenerator(nn.Module):
    """Two convolutions with dropout: it has randomness and buffers, as real generators do."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.Dropout(0.5),
            nn.ReLU(),
            nn.Conv2d(4, 1, 3, padding=1),
            nn.Tanh(),
        )
        self.calls = 0

    def forward(self, label: Tensor) -> Tensor:
        self.calls += 1
        return self.net(label)


def absolute(prediction: Tensor, image: Tensor, condition: Tensor | None) -> Tensor:
    return (prediction - image).abs().mean()


def toy_trainer(
    max_epochs: int = 3,
    num_workers: int = 0,
    amp: bool | str = False,
    handlers: Any = (),
    d_repeat: int = 1,
    g_repeat: int = 1,
    ema: float = 13.0,
    penalty: float = 0.0,
    kind: str = "bce",
    batch_size: int = 2,
    compile: bool = False,
    **more: Any,
) -> MultiStepTrainer:
    """A trainer on `ToyPairs` (batch 2: four batches an epoch), the same for the same arguments."""
    torch.manual_seed(0)
    networks = {
        "G": ToyGenerator(),
        "D": ConditionalPatchDiscriminator(channels=4, num_layers_d=1, norm="INSTANCE"),
    }
    optimizers = {name: torch.optim.Adam(net.parameters(), 1e-2) for name, net in networks.items()}
    loss = adversarial_loss(kind)
    return MultiStepTrainer(
        max_epochs=max_epochs,
        train_data_loader=DataLoader(
            ToyPairs(), batch_sampler=InfiniteBatchSampler(8, batch_size), num_workers=num_workers
        ),
        networks=networks,
        optimizers=optimizers,
        steps=[
            DiscriminatorStep(loss, penalty=penalty, repeat=d_repeat),
            GeneratorStep(loss, terms={"l1": absolute}, weights={"G_l1": 10.0}, repeat=g_repeat),
        ],
        precision=Precision("cpu", amp=amp, channels_last=True, compile=compile),
        average={"G": WeightAverage(networks["G"], ema)},
        schedulers={"G": torch.optim.lr_scheduler.ExponentialLR(optimizers["G"], 0.5)},
        train_handlers=list(handlers),
        **more,
    )
