"""Selection of generated nodules and healthy slices that are whole, most like real ones, and no copies."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn

from bundles.lung_two_stage.banks import GENERATED, NoduleBank, NoduleRecord, SliceBank, SliceRecord
from bundles.lung_two_stage.generation.bank_data import (
    HEALTHY_SLICES,
    INSIDE,
    LAYERS,
    NODULES,
    BankData,
    Images,
    images_to_alpha,
    images_to_hu,
)
from common.data.intensity import window_by_name
from common.data.lung_segmentation import segment_lung_part, segment_lung_slice
from common.errors import UserError, check_int
from common.files import replaced_folder, write_json
from common.handlers.image_logging import save_galleries
from common.inference.checkpoint import load_weights, model_info, network_for
from common.inference.sampling import MixtureSamples, class_names_of, draw_images, latents
from common.metrics.features import FeatureExtractor, extract, pattern_vectors
from common.metrics.nearest_neighbors import COPIED, nearest_training
from common.provenance import UNKNOWN, Provenance
from common.rng import make_rng, preserved_rng

FAINT = 13
"""Alpha below this, a twentieth, is what a tanh leaves of nothing."""
FEWEST_HELD_OUT = 4
"""Held-out images of a class that show what distance is usual; with fewer, all classes are pooled."""
SIMILARITY_MEASURE = (
    "1 / (1 + d / u), d: distance of the features to the nearest training image, u: usual d of real images"
)
CANDIDATES_PER_IMAGE = 4
"""Candidates drawn for each image that is wanted, where no number is given."""
REPORT, GALLERY = "generation.json", "gallery.png"
GALLERY_IMAGES = 36
COMMANDS = {
    NODULES: "--config_file bundles/lung_two_stage/configs/train_nodules.yaml",
    HEALTHY_SLICES: "--config_file \"['bundles/lung_two_stage/configs/train_nodules.yaml',"
    "'bundles/lung_two_stage/configs/train_healthy_slices.yaml']\"",
}
Alpha = NDArray[np.uint8]
Bank = TypeVar("Bank", NoduleBank, SliceBank)
Valid = NDArray[np.bool_]

logger = logging.getLogger(__name__)


def how_to_train(layer: str) -> str:
    """The command that trains the generator of a layer, for messages."""
    return f"python -m monai.bundle run training {COMMANDS[layer]}"


@dataclass(frozen=True)
class Candidates:
    """Generated images.

    Args:
        images: (N, C, S, S) in [-1, 1]; number k is sample k of the seed.
        categories: N class names; empty strings of an unconditional generator.
    """

    images: Images
    categories: list[str]


@dataclass(frozen=True)
class GeneratorModel:
    """A trained generator with the facts stored with it.

    Args:
        network: maps latents and, of conditional networks, class indices to images.
        info: see `common.inference.checkpoint.model_info`.
        device: where the network is.
    """

    network: nn.Module
    info: Mapping[str, Any]
    device: torch.device | str = "cpu"

    @classmethod
    def load(
        cls, ckpt_path: str | os.PathLike[str], how_to_train: str, device: torch.device | str = "cpu"
    ) -> GeneratorModel:
        """Loads a model that this bundle trained.

        Raises:
            UserError: there is no model, or it cannot be read.
        """
        network = network_for(ckpt_path, otherwise=nn.Identity())
        load_weights(network, ckpt_path, how_to_train)
        info = dict(model_info(ckpt_path))
        if info.get("layer") == "normals":  # the name of models trained before
            info["layer"] = HEALTHY_SLICES
        return cls(network.to(device), info, device)

    def draw(self, count: int, seed: int, mixture: Sequence[int] | None = None) -> Candidates:
        """Draws samples 0 to ``count - 1`` of ``seed``; global random states stay as they were.

        Args:
            mixture: class indices of a set of images whose mixture is drawn; else the classes take turns.
        """
        names = class_names_of(int(getattr(self.network, "classes", 0)), self.info)
        classes = np.array([number % len(names) if names else 0 for number in range(count)])
        if names and mixture is not None:
            classes = np.array(MixtureSamples(count, mixture).drawn_classes())
        noise = latents(seed, range(count), int(self.info["latent"])).to(self.device)
        condition = torch.from_numpy(classes).to(self.device) if names else None
        with preserved_rng(seed):
            images = draw_images(self.network, noise, condition).cpu().numpy()
        return Candidates(images, [names[index] if names else "" for index in classes])


def largest_piece(alpha: Alpha) -> Alpha:
    """Clears (S, S) alpha of faint pixels and of all connected pieces but the largest."""
    pieces, count = ndimage.label(alpha >= FAINT)
    if not count:
        return np.zeros_like(alpha)
    sizes = ndimage.sum_labels(alpha, pieces, np.arange(1, count + 1))
    return np.where(pieces == 1 + int(np.argmax(sizes)), alpha, 0).astype(np.uint8)


def mask_areas(alpha: Alpha) -> NDArray[np.int64]:
    """Pixels of each mask: (N, S, S) -> (N,)."""
    return np.asarray((alpha >= INSIDE).sum((1, 2)), np.int64)


def are_whole(alpha: Alpha, real: Alpha) -> Valid:
    """Whether nodules (N, S, S) are within the sizes of real ones (M, S, S) and end inside the crop: (N,)."""
    areas, real_areas = mask_areas(alpha), mask_areas(real)
    rim = np.ones(alpha.shape[1:], bool)
    rim[1:-1, 1:-1] = False
    cut = (alpha[:, rim] >= INSIDE).any(1)
    return np.asarray((areas >= real_areas.min()) & (areas <= real_areas.max()) & ~cut & (areas > 0))


def find_lungs(
    hu: NDArray[np.int16], spacing_mm: float, nominal_hu: bool, parts: bool = False
) -> NDArray[np.uint8]:
    """Segments the lungs of generated slices (N, H, W); all 0 where a slice shows none.

    Args:
        parts: the slices show parts of the chest.
    """
    if parts:
        return np.stack([segment_lung_part(values, spacing_mm, nominal_hu) for values in hu])
    lungs = np.zeros(hu.shape, np.uint8)
    for lung, values in zip(lungs, hu, strict=True):
        try:
            lung[:] = segment_lung_slice(values, spacing_mm, nominal_hu)
        except UserError:
            continue
    return lungs


def have_lungs_as(lungs: NDArray[np.uint8], real: NDArray[np.uint8]) -> Valid:
    """Whether slices' lungs (N, H, W) are within the sizes of real ones (M, H, W): (N,)."""
    sizes, real_sizes = (lungs > 0).sum((1, 2)), (real > 0).sum((1, 2))
    return np.asarray((sizes >= real_sizes.min()) & (sizes <= real_sizes.max()) & (sizes > 0))


def nodule_candidates(
    candidates: Candidates, info: Mapping[str, Any], real: NoduleBank, seed: int
) -> tuple[NoduleBank, Valid]:
    """All candidates as a bank of the real one's size, and which of them hold a whole nodule (N,).

    Args:
        info: of the model: its HU window and pixel spacing.
    """
    size, spacing = real.hu.shape[1], float(info["spacing_mm"])
    hu = images_to_hu(candidates.images, window_by_name(info["window_hu"]), size, size)
    alpha = np.stack([largest_piece(each) for each in images_to_alpha(candidates.images, size)])
    diameters = 2 * np.sqrt(mask_areas(alpha) / np.pi) * spacing  # of discs with the masks' areas
    records = [
        NoduleRecord(_name(seed, number), "", category, round(float(diameter), 3), spacing, GENERATED)
        for number, (category, diameter) in enumerate(zip(candidates.categories, diameters, strict=True))
    ]
    return NoduleBank(hu, alpha, records), are_whole(alpha, real.alpha)


def slice_candidates(
    candidates: Candidates, info: Mapping[str, Any], real: SliceBank, seed: int
) -> tuple[SliceBank, Valid]:
    """All candidates as a bank of the real one's size, and which of them have lungs as real ones do (N,)."""
    spacing, nominal = float(info["spacing_mm"]), bool(info.get("nominal_hu", False))
    hu = images_to_hu(candidates.images, window_by_name(info["window_hu"]), *real.hu.shape[1:])
    part = any(record.part for record in real.records)
    lung = find_lungs(hu, spacing, nominal, part)
    records = [
        SliceRecord(_name(seed, number), "", spacing, nominal, GENERATED, part=part)
        for number in range(len(hu))
    ]
    return SliceBank(hu, lung, np.zeros_like(lung), records), have_lungs_as(lung, real.lung)


def _name(seed: int, number: int) -> str:
    return f"generated_{seed}_{number:06d}"


def take_similar(bank: Bank, indices: Sequence[int], similarity: NDArray[np.float64]) -> Bank:
    """The entries at ``indices``; the records get their ``similarity``, given for the whole bank (N,)."""
    chosen = bank.take(indices)
    values = [round(float(similarity[index]), 4) for index in indices]
    records = [replace(record, similarity=v) for record, v in zip(chosen.records, values, strict=True)]
    return replace(chosen, records=records)


def draw_entries(bank: Bank, most: int, seed: int) -> Bank:
    """At most ``most`` entries, drawn by ``seed``, in the bank's order."""
    order = make_rng(seed, "real entries").permutation(len(bank))
    return bank.take(sorted(order[:most].tolist()))


@dataclass(frozen=True)
class Similarity:
    """How generated images compare with real ones.

    Args:
        values: (N,) 0 to 1, see `SIMILARITY_MEASURE`; 1 for an image at no distance from a training image.
        copied: (N,) whether an image is a near-copy of a training image.
    """

    values: NDArray[np.float64]
    copied: NDArray[np.bool_]


class RealReference:
    """Training images as the generator saw them and held-out ones, to compare generated images with.

    Args:
        data: the bank that the generator was trained with, split as then.
        extractor: of the features.
    Raises:
        UserError: there are no held-out images.
    """

    def __init__(self, data: BankData, extractor: FeatureExtractor) -> None:
        self.extractor = extractor
        self.training = data.train.first_channel().as_seen()
        parts = [data.val.first_channel(), data.test.first_channel()]
        self.held_out = np.concatenate([part.images for part in parts])
        self.held_out_categories = [sample.category for part in parts for sample in part.samples]
        if not len(self.held_out):
            raise UserError(f"{data.dataset_dir}: no held-out images to compare generated ones with")

    def similarity(self, images: Images, categories: Sequence[str]) -> Similarity:
        """Compares generated images (N, C, S, S) in [-1, 1], each with the real ones of its class."""
        values, copied = np.zeros(len(images)), np.zeros(len(images), bool)
        for category in sorted(set(categories)):
            indices = [index for index, name in enumerate(categories) if name == category]
            result = self._compare(torch.from_numpy(np.ascontiguousarray(images[indices, :1])), category)
            values[indices], copied[indices] = result.values, result.copied
        return Similarity(values, copied)

    def _compare(self, images: Tensor, category: str) -> Similarity:
        sets = (images, *self._real(category))
        by_features = nearest_training(*(extract(self.extractor, part) for part in sets))
        by_pixels = nearest_training(*(pattern_vectors(part) for part in sets))
        copied = (by_features.ranks < COPIED) | (by_pixels.ranks < COPIED)
        return Similarity((1 / (1 + by_features.ratios())).numpy(), copied.numpy())

    def _real(self, category: str) -> tuple[Tensor, Tensor]:
        """Training and held-out images of the class, or of all classes where few of it are held out."""
        own = [index for index, name in enumerate(self.held_out_categories) if name == category]
        if len(own) < FEWEST_HELD_OUT:
            return torch.from_numpy(self.training.images), torch.from_numpy(self.held_out)
        kept = [index for index, s in enumerate(self.training.samples) if s.category == category]
        return torch.from_numpy(self.training.images[kept]), torch.from_numpy(self.held_out[own])


def most_similar(similarity: Similarity, valid: Valid, categories: Sequence[str], count: int) -> list[int]:
    """Indices of the valid images that are no copies and most like real ones, the most similar first.

    Args:
        count: wanted, in equal parts of each class; fewer are returned where there are not enough.
    """
    usable = np.flatnonzero(valid & ~similarity.copied).tolist()
    names = sorted(set(categories))
    chosen: list[int] = []
    for number, category in enumerate(names):
        share = count // len(names) + (number < count % len(names))
        own = [index for index in usable if categories[index] == category]
        chosen += sorted(own, key=lambda index: -similarity.values[index])[:share]
    return sorted(chosen, key=lambda index: -similarity.values[index])


@dataclass(frozen=True)
class Selection:
    """The selection of one layer: its generator, the bank that it learned from, and how many images to keep.

    Args:
        layer: ``nodules`` or ``healthy_slices``.
        ckpt_path: the trained generator.
        bank_dir: the bank that it was trained with.
        output_dir: folder of the new bank.
        extractor: of the features that similarity is measured by.
        real: real entries at most, drawn from the whole bank by ``seed``.
        generated: generated entries, those that are most like real ones.
        candidates: images drawn to choose from; None for four times ``generated``.
        seed: of noise and choice.
        device: where images are drawn.
        split_seed: of the split in training.
    Raises:
        UserError: a number below 0, or nothing is wanted.

    Example:
        >>> pixels = torch.nn.Flatten()  # the features
        >>> Selection("nodules", "model.pt", "bank", "out", pixels, real=50, generated=100).drawn
        400
    """

    layer: str
    ckpt_path: str | os.PathLike[str]
    bank_dir: str | os.PathLike[str]
    output_dir: str | os.PathLike[str]
    extractor: FeatureExtractor
    real: int
    generated: int
    candidates: int | None = None
    seed: int = 0
    device: torch.device | str = "cpu"
    split_seed: int = 0

    def __post_init__(self) -> None:
        for name in ("real", "generated"):
            check_int(name, getattr(self, name))
        if self.candidates is not None:
            check_int("candidates", self.candidates, least=1)
        if self.real + self.generated < 1:
            raise UserError("real 0 and generated 0: nothing is wanted")

    @property
    def drawn(self) -> int:
        """Number of candidates."""
        return self.candidates or max(1, CANDIDATES_PER_IMAGE * self.generated)

    def run(self) -> dict[str, Any]:
        """Loads the model and its bank and writes the new one; see `write_bank`.

        Raises:
            UserError: there is no model or no bank, or the model is of another layer.
        """
        model = GeneratorModel.load(self.ckpt_path, how_to_train(self.layer), self.device)
        trained_layer = model.info.get("layer", self.layer)
        if trained_layer != self.layer:
            raise UserError(f"{self.ckpt_path}: a model of {trained_layer}, not of {self.layer}")
        data = BankData.of_model(model.info, self.bank_dir, self.layer, self.split_seed)
        return self.write_bank(data, model, Provenance.of("lung_two_stage", self.ckpt_path, self.seed))

    def write_bank(
        self, data: BankData, model: GeneratorModel, provenance: Provenance = UNKNOWN
    ) -> dict[str, Any]:
        """Writes a bank of real and generated entries with a report and a gallery; whole, or nothing changes.

        Candidates that are no whole nodule (or show no lungs) and near-copies of training images are left
        out; of the rest the most similar to real images are kept. A warning says where there are not enough.

        Args:
            data: the bank that the model was trained with, split as then.
            model: the generator.
            provenance: for the report.
        Returns:
            The report, as in ``generation.json``.
        Raises:
            UserError: nothing is left, or the folder cannot be written.
        """
        candidates = model.draw(self.drawn, self.seed)
        kind: Any = NoduleBank if self.layer == NODULES else SliceBank
        make: Any = nodule_candidates if self.layer == NODULES else slice_candidates
        source = kind.load(data.dataset_dir)
        bank, valid = make(candidates, model.info, source, self.seed)
        similarity = RealReference(data, self.extractor).similarity(candidates.images, candidates.categories)
        chosen = most_similar(similarity, valid, candidates.categories, self.generated)
        real = draw_entries(source, self.real, self.seed)
        counts = {
            "real": len(real),
            "generated": len(chosen),
            "drawn": len(valid),
            "invalid": int((~valid).sum()),
            "copies": int((valid & similarity.copied).sum()),
        }
        self._check_counts(counts)
        report = {
            **provenance.record(),
            "layer": self.layer,
            "counts": counts,
            "similarity": _extremes(similarity.values[chosen]),
            "similarity_of_candidates": _extremes(similarity.values),
            "measure": SIMILARITY_MEASURE,
            "extractor": self.extractor.name,
            "wanted": {n: getattr(self, n) for n in ("real", "generated", "candidates", "seed")},
            "bank": str(data.dataset_dir),
        }
        with replaced_folder(self.output_dir, REPORT) as folder:
            real.concatenate(take_similar(bank, chosen, similarity.values)).save(folder)
            pictures = {"real": data.train.images, "generated, most similar first": candidates.images[chosen]}
            shown = {name: torch.from_numpy(images[:GALLERY_IMAGES, :1]) for name, images in pictures.items()}
            save_galleries(folder / GALLERY, {name: images for name, images in shown.items() if len(images)})
            write_json(folder / REPORT, report)
        return report

    def _check_counts(self, counts: Mapping[str, int]) -> None:
        if not counts["real"] + counts["generated"]:
            raise UserError(
                f"{self.output_dir}: none of {counts['drawn']} candidates is left ({counts['invalid']} "
                f"invalid, {counts['copies']} copies); train longer, or draw more with --candidates"
            )
        logger.info("%s: %s", self.output_dir, ", ".join(f"{count} {name}" for name, count in counts.items()))
        if counts["generated"] < self.generated:
            logger.warning(
                f"{self.output_dir}: {counts['generated']} of {self.generated} wanted; train longer, or draw "
                "more candidates"
            )


def _extremes(values: NDArray[np.float64]) -> dict[str, float] | None:
    """Least, median and largest value; None where there are no values."""
    if not len(values):
        return None
    low, middle, high = np.quantile(values, [0, 0.5, 1]).round(4).tolist()
    return {"least": low, "median": middle, "largest": high}


def run_selections(selections: Sequence[Selection], layers: str | Sequence[str]) -> list[dict[str, Any]]:
    """Runs the selections of some layers, once all their models are there.

    Args:
        layers: names, as a list or with commas between.
    Raises:
        UserError: an unknown name, or whatever a layer's model or bank lacks.

    Example:
        >>> run_selections([], "nodules, healthy_slices")
        []
    """
    names = [name.strip() for name in layers.split(",")] if isinstance(layers, str) else list(layers)
    unknown = sorted(set(names) - set(LAYERS))
    if unknown or not names:
        raise UserError(f"layers {', '.join(unknown) or 'none'}: choose of {', '.join(LAYERS)}")
    chosen = [selection for selection in selections if selection.layer in names]
    for selection in chosen:
        if not Path(selection.ckpt_path).is_file():
            command = how_to_train(selection.layer)
            raise UserError(f"{selection.ckpt_path}: no trained model yet; train first: {command}")
    return [selection.run() for selection in chosen]
