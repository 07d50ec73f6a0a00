"""Applies the enhancer to all composites, shard by shard; each output shard is complete or absent."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from bundles.lung_two_stage.composition.shards import (
    DESCRIPTION,
    Composite,
    Composites,
    Entry,
    Member,
    ShardSet,
    made_by,
)
from bundles.lung_two_stage.enhancement.data import to_changed_hu
from bundles.lung_two_stage.segmentation.inference import network_input
from common.data.intensity import Window
from common.errors import UserError
from common.files import read_json, write_json
from common.inference.checkpoint import load_weights, network_for
from common.networks.generators import ResnetGenerator
from common.provenance import sha256_of
from common.training import distributed

BLOCK = 16
"""Images of a batch, counted from a shard's start.

The last bits of an image depend on the batch, so the batches of a shard are always the same.
"""
logger = logging.getLogger(__name__)


class Enhancement:
    """Applies a trained enhancer to the shards of a composition.

    The new shards have the same names, keys and masks; the records get an ``enhancer`` entry. Existing shards
    are kept: a run that was killed and started again writes the same files. Processes share the shards.

    Args:
        composites_dir: finished shards.
        output_dir: for the new ones.
        network: the enhancer, on ``device``.
        apply: an inferer, called as ``apply(images, network)``.
        window: HU range of [-1, 1].
        facts: of the model, as plain JSON, for the description; records hold ``sha256`` and ``iteration``.
        device: of the network.
    Raises:
        UserError: the shards are not finished, or ``output_dir`` holds those of another model.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from bundles.lung_two_stage.banks import NoduleBank, NoduleRecord, SliceBank, SliceRecord
        >>> from bundles.lung_two_stage.composition.compose import ComposeSettings, compose
        >>> from common.inference.prepare_batch import PrecisionInferer
        >>> from common.training.precision import Precision
        >>> lung, alpha = np.ones((1, 32, 32), np.uint8), np.full((1, 8, 8), 255, np.uint8)
        >>> nodule = NoduleBank(np.int16(alpha), alpha, [NoduleRecord("n", "p", "", 8.0, 1.0)])
        >>> healthy = SliceBank(np.int16(lung) * -850, lung, 0 * lung, [SliceRecord("s", "p", 1.0)])
        >>> network, apply = ResnetGenerator(width=4), PrecisionInferer(Precision("cpu"))  # untrained
        >>> with TemporaryDirectory() as work:
        ...     banks = [str(bank.save(f"{work}/{bank.what}")) for bank in (nodule, healthy)]
        ...     compose(ComposeSettings(*banks, f"{work}/composites", count=3, groups=5))
        ...     folders = f"{work}/composites", f"{work}/enhanced"
        ...     Enhancement(*folders, network, apply, Window(-1000, 400), facts={"iteration": 0}).run()
        ...     Composites(folders[1])[2].record["enhancer"]  # doctest: +ELLIPSIS
        3 of 5 combinations kept...
        3 enhanced composites in 1 shards in ...
        {'sha256': None, 'iteration': 0}
    """

    def __init__(
        self,
        composites_dir: str | os.PathLike[str],
        output_dir: str | os.PathLike[str],
        network: nn.Module,
        apply: Callable[[Tensor, nn.Module], Tensor],
        window: Window,
        facts: Mapping[str, Any],
        device: torch.device | str = "cpu",
    ) -> None:
        self.composites, self.folder = Composites(composites_dir), Path(output_dir)
        if self.folder.resolve() == Path(composites_dir).resolve():
            raise UserError(f"{output_dir}: holds the composites themselves; choose another --output_dir")
        self.network, self.apply, self.window = network, apply, window
        self.facts, self.device = dict(facts), device
        self.brief = {name: self.facts.get(name) for name in ("sha256", "iteration")}
        entries = self.composites.entries
        self.shards = ShardSet(self.folder, len(self.composites), entries[0].count)

    def run(self) -> None:
        """Writes the missing shards. Each process takes a share; the last one writes the manifest."""
        if distributed.is_main():
            self._describe()
        distributed.barrier()
        missing = [
            shard for shard in self.shards.missing() if shard % distributed.ranks() == distributed.rank()
        ]
        total = sum(len(self.shards.numbers(shard)) for shard in missing)
        with tqdm(total=total, unit="image", desc="enhancing", disable=None) as bar:
            for shard in missing:
                self.shards.write(shard, self._enhanced(self.composites.entries[shard], bar))
        distributed.barrier()
        if distributed.is_main() and self.shards.finish():
            print(f"{len(self.composites)} enhanced composites in {len(self.shards)} shards in {self.folder}")

    def _enhanced(self, entry: Entry, bar: tqdm) -> Iterator[Member]:
        """The enhanced composites of a shard, in order."""
        number = entry.first
        composites = iter(self.composites.shard(entry))
        while block := list(islice(composites, BLOCK)):
            before = np.stack([composite.image for composite in block])
            images = self.apply(network_input(before, self.window).to(self.device), self.network)
            for composite, hu in zip(block, to_changed_hu(images, before, self.window), strict=True):
                yield Member(number, self._files(composite, hu))
                number += 1
            bar.update(len(block))

    def _files(self, composite: Composite, hu: np.ndarray) -> dict[str, bytes]:
        form, spacing = self.composites.format, float(composite.record["spacing_mm"])
        record = {**composite.record, **made_by().marks, "enhancer": self.brief}
        return {
            f"image.{form.suffix}": form.encode_image(hu, spacing),
            f"mask.{form.suffix}": form.encode_mask(composite.mask, spacing),
            "json": json.dumps(record, separators=(",", ":")).encode(),
        }

    def _describe(self) -> None:
        """Writes the description before the first shard; refuses to mix the shards of two models."""
        path = self.folder / DESCRIPTION
        description = json.loads(json.dumps({**self.composites.description, "enhancer": self.facts}))
        if path.is_file() and read_json(path) != description:
            raise UserError(
                f"{path}: shards of another enhancer or of other composites are here; "
                "delete them or choose another --output_dir"
            )
        write_json(path, description)


def model_facts(ckpt_path: str | os.PathLike[str], info: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of the enhancer for the description: SHA-256, iteration and metrics.

    Example:
        >>> from tempfile import mkdtemp
        >>> path = Path(mkdtemp()) / "model.pt"
        >>> _ = path.write_bytes(b"weights")
        >>> model_facts(path, {"iteration": 3, "metrics": {"fid": 2.0}})["metrics"]
        {'fid': 2.0}
    """
    return {
        "sha256": sha256_of(Path(ckpt_path)),
        "iteration": info.get("iteration"),
        "metrics": dict(info.get("metrics", {})),
    }


def load_enhancer(ckpt_path: str | os.PathLike[str]) -> nn.Module | None:
    """Loads the enhancer, images (B, 1, H, W) in [-1, 1] to enhanced ones, on the CPU.

    Returns:
        None, with a log line, where there is no file.
    Raises:
        UserError: the file cannot be read, or belongs to another network.
    """
    if not Path(ckpt_path).is_file():
        logger.info(f"{ckpt_path}: no enhancer yet, slices stay as they are")
        return None
    network = network_for(ckpt_path, ResnetGenerator(residual=True))
    return load_weights(network, ckpt_path, "run training of train_enhancer.yaml")
