"""The enhancer over every composite: shards in, shards out, each whole or absent."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from bundles.lung_two_stage.composition.settings import made_by
from bundles.lung_two_stage.composition.shards import (
    DESCRIPTION,
    Composite,
    Composites,
    Entry,
    Member,
    ShardSet,
)
from bundles.lung_two_stage.enhancement.data import to_changed_hu, to_images
from common.data.intensity import Window
from common.errors import UserError
from common.files import read_json, write_json
from common.inference.checkpoint import load_weights, network_for
from common.networks.generators import ResnetGenerator
from common.provenance import sha256_of
from common.training import distributed

BLOCK = 16
"""Images that go through the network together, counted from a shard's start.

The last bits of an image depend on what is computed beside it; so each always has the same company.
"""


class Enhancement:
    """Applies a trained enhancer to the shards of a composition.

    The new shards have the same names, keys and masks; a composite's record goes on in ``enhancer``. A shard
    that is there is not made again: killed and started again, the same files come out. Processes share the
    shards.

    Args:
        composites_dir: finished shards.
        output_dir: for the new ones.
        network: the enhancer, prepared for ``device``.
        apply: called as ``apply(images, network)``, an inferer.
        window: HU range of [-1, 1].
        facts: of the model, for the description: plain JSON; records hold its ``sha256`` and ``iteration``.
        device: of the network.
    Raises:
        UserError: the shards are not finished, or ``output_dir`` holds those of another model.
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
        """Makes what is missing. Every process takes its share; the last one writes the manifest."""
        if distributed.is_main():
            self._describe()
        distributed.barrier()
        wanted = [
            shard for shard in self.shards.missing() if shard % distributed.ranks() == distributed.rank()
        ]
        total = sum(len(self.shards.numbers(shard)) for shard in wanted)
        with tqdm(total=total, unit="image", desc="enhancing", disable=None) as bar:
            for shard in wanted:
                self.shards.write(shard, self._enhanced(self.composites.entries[shard], bar))
        distributed.barrier()
        if distributed.is_main() and self.shards.finish():
            print(f"{len(self.composites)} enhanced composites in {len(self.shards)} shards in {self.folder}")

    def _enhanced(self, entry: Entry, bar: tqdm) -> Iterator[Member]:
        """The shard's composites after the enhancement, in order."""
        number = entry.first
        for block in blocks(self.composites.shard(entry)):
            images = enhanced(block, self.network, self.apply, self.window, self.device)
            for composite, hu in zip(block, images, strict=True):
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
        """Says what the shards hold before the first is written; refuses to mix two models' shards."""
        path = self.folder / DESCRIPTION
        description = json.loads(json.dumps({**self.composites.description, "enhancer": self.facts}))
        if path.is_file() and read_json(path) != description:
            raise UserError(
                f"{path}: shards of another enhancer or of other composites are here; "
                "delete them or choose another --output_dir"
            )
        write_json(path, description)


def enhanced(
    composites: Sequence[Composite],
    network: nn.Module,
    apply: Callable[[Tensor, nn.Module], Tensor],
    window: Window,
    device: torch.device | str = "cpu",
) -> np.ndarray:
    """The network's images of some composites: HU (N, H, W) int16."""
    before = np.stack([composite.image for composite in composites])
    images = apply(to_images(before, window).to(device), network)
    return to_changed_hu(images, before, window)


def blocks(composites: Iterable[Composite]) -> Iterator[list[Composite]]:
    """`BLOCK` at a time; the last may be shorter."""
    waiting = iter(composites)
    while block := list(islice(waiting, BLOCK)):
        yield block


def model_facts(ckpt_path: str | os.PathLike[str], info: Mapping[str, Any]) -> dict[str, Any]:
    """What is to be known of the enhancer: the model's hash, its iteration and its metrics."""
    return {
        "sha256": sha256_of(Path(ckpt_path)),
        "iteration": info.get("iteration"),
        "metrics": dict(info.get("metrics", {})),
    }


logger = logging.getLogger(__name__)


def load_enhancer(ckpt_path: str | os.PathLike[str]) -> Callable[[Tensor], Tensor] | None:
    """The enhancer, (B, 1, H, W) in [-1, 1] to the same, on the CPU; None, said in one line, without a file.

    Raises:
        UserError: the file cannot be read or is another network's.
    """
    if not Path(ckpt_path).is_file():
        logger.info(f"{ckpt_path}: no enhancer yet, slices stay as they are")
        return None
    network = network_for(ckpt_path, ResnetGenerator(residual=True))
    load_weights(network, ckpt_path, "run training of train_enhancer.yaml")
    return network.requires_grad_(False).eval()
