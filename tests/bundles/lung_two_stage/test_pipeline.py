"""The chain as shipped, on phantoms: every stage runs, is current afterwards, and has learned something."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bundles.lung_two_stage.banks import NoduleBank, SliceBank
from bundles.lung_two_stage.composition.shards import Composites
from bundles.lung_two_stage.generation.select import GeneratorModel
from common.data.intensity import to_network, to_unit, window_by_name
from common.files import read_json
from common.inference.checkpoint import model_info, network_for
from common.metrics.features import extract, extractor_by_name
from common.metrics.fid import fid
from tests.bundles.runs import ROOT, Run, command, finished

CONFIG = ROOT / "bundles" / "lung_two_stage" / "configs" / "pipeline.yaml"
LUNG = window_by_name("lung")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]


def run_chain(work: Path) -> Run:
    parts = ["run", "pipeline", "--config_file", str(CONFIG), "--work_dir", str(work)]
    return finished(command(parts, OMP_NUM_THREADS="1"), timeout=2900)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the chain has written."""
    folder = tmp_path_factory.mktemp("chain") / "work"
    run = run_chain(folder)
    assert run.code == 0, run.err
    return folder


def test_every_stage_is_current_afterwards(work: Path) -> None:
    run = run_chain(work)
    said = [line for line in (run.out + run.err).splitlines() if "stage" in line and " of " in line]
    assert run.code == 0 and said and all(line.endswith(": current") for line in said), said


def test_the_segmenter_beats_its_untrained_copy_and_the_empty_mask(work: Path) -> None:
    methods = read_json(work / "tables" / "segmentation" / "eval" / "metrics.json")["methods"]
    trained = methods["this method"]
    for name in ("untrained this method", "empty mask"):
        assert trained["dice"]["mean"] > methods[name]["dice"]["mean"] + 0.1
        assert trained["sensitivity"]["mean"] > methods[name]["sensitivity"]["mean"]


def distance(real: Tensor, made: Tensor) -> float:
    """FID of images (N, 1, S, S)."""
    extractor = extractor_by_name("randvgg")
    return fid(extract(extractor, real), extract(extractor, made))


def untrained_copy(ckpt_path: Path) -> nn.Module:
    torch.manual_seed(0)
    return network_for(ckpt_path, otherwise=nn.Identity())


def as_network(hu: np.ndarray, size: int) -> Tensor:
    """HU (N, H, W) -> (N, 1, size, size) in [-1, 1]."""
    images = torch.from_numpy(to_network(to_unit(hu, LUNG, is_hu=True)))[:, None]  # (N, 1, H, W)
    return nn.functional.interpolate(images, size, mode="area")


@pytest.mark.parametrize("layer", ["nodules", "healthy_slices"])
def test_generators_beat_their_untrained_copies_and_the_mean_image(work: Path, layer: str) -> None:
    path = work / layer / "models" / "model.pt"
    trained = GeneratorModel.load(path, "the chain")
    plain = GeneratorModel(untrained_copy(path), model_info(path))
    kind = NoduleBank if layer == "nodules" else SliceBank
    bank = kind.load(work / "extraction" / layer)
    drawn = torch.from_numpy(trained.draw(len(bank), 0).images[:, :1])
    real = as_network(bank.hu, drawn.shape[-1])
    mean = real.mean(0, keepdim=True).expand_as(real)
    learned = distance(real, drawn)
    assert learned < distance(real, torch.from_numpy(plain.draw(len(bank), 0).images[:, :1]))
    assert learned < distance(real, mean)


def test_the_enhancer_beats_its_untrained_copy_and_keeps_the_nodules(work: Path) -> None:
    metrics = model_info(work / "enhancer" / "models" / "model.pt")["metrics"]
    network = untrained_copy(work / "enhancer" / "models" / "model.pt").eval()
    composites = stacked(work / "composites", 40)
    others = SliceBank.load(work / "extraction" / "others")
    real = as_network(others.hu, composites.shape[-1])
    with torch.inference_mode():
        drawn = network(composites)
    assert distance(real, stacked(work / "enhanced", 40)) < distance(real, drawn)
    assert metrics["lesion_faithfulness"] > 0.8 and metrics["dice"] > 0.8 * metrics["before_dice"]
    assert metrics["before_dice"] > 0.1


def stacked(folder: Path, count: int) -> Tensor:
    """The first slices of a folder of shards, (N, 1, H, W) in [-1, 1]."""
    composites = Composites(folder)
    images = np.stack([composites[number].image for number in range(count)])
    return as_network(images, images.shape[-1])
