"""The layers of the composites, as ``generate.yaml`` names them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bundles.lung_two_stage.generation.candidates import GeneratorModel
from bundles.lung_two_stage.generation.data import LAYERS, BankData
from bundles.lung_two_stage.generation.generating import Wanted, generate
from common.errors import UserError
from common.metrics.features import FeatureExtractor
from common.provenance import Provenance

COMMANDS = {
    "nodules": "--config_file bundles/lung_two_stage/configs/train_nodules.yaml",
    "normals": "--config_file \"['bundles/lung_two_stage/configs/train_nodules.yaml',"
    "'bundles/lung_two_stage/configs/train_normals.yaml']\"",
}


def how_to_train(layer: str) -> str:
    """The command that makes the model of a layer."""
    return f"python -m monai.bundle run training {COMMANDS[layer]}"


@dataclass(frozen=True)
class LayerSettings:
    """What all layers share.

    Args:
        extractor: of the features.
        output_dir: each layer's bank lies in a folder of its name.
        device: where images are drawn.
        split_seed: of the split that the training had.
    """

    extractor: FeatureExtractor
    output_dir: str | os.PathLike[str]
    device: torch.device | str = "cpu"
    split_seed: int = 0


@dataclass(frozen=True)
class GeneratedLayer:
    """One layer: its model, its bank, how many.

    Args:
        name: ``nodules`` or ``normals``.
        settings: what all layers share.
        ckpt_path: the trained generator.
        bank_dir: what it learned from.
        wanted: how many.
    """

    name: str
    settings: LayerSettings
    ckpt_path: str | os.PathLike[str]
    bank_dir: str | os.PathLike[str]
    wanted: Wanted

    def run(self) -> dict[str, Any]:
        """Writes the bank; the report.

        Raises:
            UserError: no model, no bank, or a model of another layer.
        """
        model = GeneratorModel.load(self.ckpt_path, how_to_train(self.name), self.settings.device)
        found = model.info.get("layer", self.name)
        if found != self.name:
            raise UserError(f"{self.ckpt_path}: a model of {found}, not of {self.name}")
        data = bank_of(model.info, self.bank_dir, self.name, self.settings.split_seed)
        output = Path(self.settings.output_dir) / self.name
        made_by = Provenance.of("lung_two_stage", self.ckpt_path, self.wanted.seed)
        return generate(data, model, self.wanted, self.settings.extractor, output, made_by)


def bank_of(info: Any, bank_dir: str | os.PathLike[str], layer: str, split_seed: int) -> BankData:
    """A bank prepared and split as for the training that ``info`` tells of."""
    return BankData(
        bank_dir,
        layer,
        int(info["image_size"]),
        info["window_hu"],
        turned=bool(info.get("turned", layer == "nodules")),
        split_seed=split_seed,
        trained=info,
    )


def run_layers(layers: Sequence[GeneratedLayer], names: str | Sequence[str]) -> list[dict[str, Any]]:
    """Runs the layers of these names (a list, or with commas between).

    Raises:
        UserError: an unknown name, or whatever a layer's model or bank lacks.
    """
    wanted = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)
    unknown = sorted(set(wanted) - set(LAYERS))
    if unknown or not wanted:
        raise UserError(f"layers {', '.join(unknown) or 'none'}: choose of {', '.join(LAYERS)}")
    for layer in layers:  # before hours of work: all models are there
        if layer.name in wanted and not Path(layer.ckpt_path).is_file():
            raise UserError(
                f"{layer.ckpt_path}: no trained model yet; train first: {how_to_train(layer.name)}"
            )
    return [layer.run() for layer in layers if layer.name in wanted]
