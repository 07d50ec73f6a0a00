"""What a trained generator draws, to be chosen from."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn

from bundles.lung_two_stage.banks import GENERATED, NoduleBank, NoduleRecord, SliceBank, SliceRecord
from bundles.lung_two_stage.generation.bank_data import (
    INSIDE,
    LAYERS,
    BankData,
    Images,
    images_to_alpha,
    images_to_hu,
)
from common.data.intensity import window_by_name
from common.data.lung_segmentation import segment_lung_part, segment_lung_slice
from common.errors import UserError, check_int
from common.files import remade_folder, write_json
from common.handlers.image_logging import save_galleries
from common.inference.checkpoint import load_weights, model_info, network_for
from common.inference.sampling import MixtureSamples, class_names_of, draw_images, latents
from common.metrics.features import FeatureExtractor, extract, pattern_vectors
from common.metrics.memorization import COPIED, nearest_training
from common.provenance import UNKNOWN, Provenance
from common.rng import make_rng
from common.training.contexts import preserved_rng


@dataclass(frozen=True)
class GeneratorModel:
    """A trained generator and what stands beside it.

    Args:
        network: takes latents and, where it has classes, their indices.
        info: see `common.inference.checkpoint.model_info`.
        device: where it works.
    """

    network: nn.Module
    info: Mapping[str, Any]
    device: torch.device | str = "cpu"

    @classmethod
    def load(
        cls, ckpt_path: str | os.PathLike[str], how_to_train: str, device: torch.device | str = "cpu"
    ) -> GeneratorModel:
        """The model of a training of this bundle.

        Raises:
            UserError: no model there, or none that can be read.
        """
        network = network_for(ckpt_path, otherwise=nn.Identity())
        load_weights(network, ckpt_path, how_to_train)
        info = dict(model_info(ckpt_path))
        if info.get("layer") == "normals":  # the name of models trained before
            info["layer"] = LAYERS[1]
        return cls(network.to(device), info, device)

    @property
    def latent(self) -> int:
        """Values of the noise."""
        return int(self.info["latent"])

    @property
    def class_names(self) -> list[str]:
        """The classes that it takes; empty where it takes none."""
        return class_names_of(int(getattr(self.network, "classes", 0)), self.info)

    def draw(self, count: int, seed: int, mixture: Sequence[int] | None = None) -> Candidates:
        """Samples 0 to ``count - 1`` of ``seed``; random states stay.

        Args:
            mixture: classes of images whose mixture is wanted; without it the classes take turns.
        """
        numbers, names = range(count), self.class_names
        classes = np.array([number % len(names) if names else 0 for number in numbers])
        if names and mixture is not None:
            classes = np.array(MixtureSamples(count, mixture).drawn_classes())
        noise = latents(seed, numbers, self.latent).to(self.device)
        condition = torch.from_numpy(classes).to(self.device) if names else None
        with preserved_rng(seed):
            images = draw_images(self.network, noise, condition).cpu().numpy()
        return Candidates(images, [names[place] if names else "" for place in classes])


@dataclass(frozen=True)
class Candidates:
    """Generated images.

    Args:
        images: (N, C, S, S) in [-1, 1]; number k is sample k of the seed.
        categories: N, the class asked for; empty where the generator takes none.
    """

    images: Images
    categories: list[str]


def shipped_or_trained(bundle_root: str, work_dir: str) -> str:
    """The model of nodules: ``models/model.pt`` where the bundle brings one, else the training's."""
    return str(Path(folder_of_nodules(bundle_root, work_dir)) / "models" / "model.pt")


def folder_of_nodules(bundle_root: str, work_dir: str) -> str:
    """The folder with the ``models/`` of nodules: the bundle where it brings them, else the training's."""
    shipped = (Path(bundle_root) / "models" / "model.pt").is_file()
    return bundle_root if shipped else str(Path(work_dir) / "nodules")


FAINT = 13
"""Alpha below this, a twentieth, is what a tanh leaves of nothing."""
Alpha = NDArray[np.uint8]


def one_nodule(alpha: Alpha) -> Alpha:
    """(S, S) alpha without faint pixels and without pieces apart from the largest."""
    pieces, count = ndimage.label(alpha >= FAINT)
    if not count:
        return np.zeros_like(alpha)
    sizes = ndimage.sum_labels(alpha, pieces, np.arange(1, count + 1))
    return np.where(pieces == 1 + int(np.argmax(sizes)), alpha, 0).astype(np.uint8)


def areas(alpha: Alpha) -> NDArray[np.int64]:
    """Pixels of each mask: (N, S, S) -> (N,)."""
    return np.asarray((alpha >= INSIDE).sum((1, 2)), np.int64)


def are_whole(alpha: Alpha, real: Alpha) -> NDArray[np.bool_]:
    """Which nodules (N, S, S) are as large as real ones (M, S, S) are, and end within the crop: (N,)."""
    sizes, known = areas(alpha), areas(real)
    rim = np.ones(alpha.shape[1:], bool)
    rim[1:-1, 1:-1] = False
    cut = (alpha[:, rim] >= INSIDE).any(1)
    return np.asarray((sizes >= known.min()) & (sizes <= known.max()) & ~cut & (sizes > 0))


def diameters_mm(alpha: Alpha, spacing_mm: float) -> NDArray[np.float64]:
    """Of the discs with the masks' areas: (N, S, S) -> (N,)."""
    return np.asarray(2 * np.sqrt(areas(alpha) / np.pi) * spacing_mm)


def find_lungs(
    hu: NDArray[np.int16], spacing_mm: float, nominal_hu: bool, parts: bool = False
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """The lungs of generated slices (N, H, W), and in which of them (N,) there are any.

    Args:
        parts: they show parts of the chest.
    """
    if parts:
        lungs = np.stack([segment_lung_part(values, spacing_mm, nominal_hu) for values in hu])
        return lungs, np.asarray(lungs.any((1, 2)))
    lungs = np.zeros(hu.shape, np.uint8)
    found = np.zeros(len(hu), bool)
    for place, values in enumerate(hu):
        try:
            lungs[place] = segment_lung_slice(values, spacing_mm, nominal_hu)
        except UserError:
            continue
        found[place] = True
    return lungs, found


def have_lungs_as(lungs: NDArray[np.uint8], real: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which of the slices' lungs (N, H, W) are as large as real ones (M, H, W) are: (N,)."""
    sizes, known = (lungs > 0).sum((1, 2)), (real > 0).sum((1, 2))
    return np.asarray((sizes >= known.min()) & (sizes <= known.max()) & (sizes > 0))


Bank = TypeVar("Bank", NoduleBank, SliceBank)
Valid = NDArray[np.bool_]


def made_nodules(
    candidates: Candidates, model: GeneratorModel, real: NoduleBank, seed: int
) -> tuple[NoduleBank, Valid]:
    """All candidates as a bank of the real one's size, and which of them hold a whole nodule (N,).

    Alpha is cleared of what lies apart from the nodule.
    """
    size, spacing = real.hu.shape[1], float(model.info["spacing_mm"])
    hu = images_to_hu(candidates.images, window_by_name(model.info["window_hu"]), size, size)
    alpha = np.stack([one_nodule(each) for each in images_to_alpha(candidates.images, size)])
    diameters = diameters_mm(alpha, spacing)
    records = [
        NoduleRecord(_name(seed, number), "", category, round(float(diameter), 3), spacing, GENERATED)
        for number, (category, diameter) in enumerate(zip(candidates.categories, diameters, strict=True))
    ]
    return NoduleBank(hu, alpha, records), are_whole(alpha, real.alpha)


def made_slices(
    candidates: Candidates, model: GeneratorModel, real: SliceBank, seed: int
) -> tuple[SliceBank, Valid]:
    """All candidates as a bank of the real one's size, and which of them (N,) have lungs as real ones do."""
    spacing, nominal = float(model.info["spacing_mm"]), bool(model.info.get("nominal_hu", False))
    height, width = real.hu.shape[1:]
    hu = images_to_hu(candidates.images, window_by_name(model.info["window_hu"]), height, width)
    part = any(record.part for record in real.records)
    lung, found = find_lungs(hu, spacing, nominal, part)
    records = [
        SliceRecord(_name(seed, number), "", spacing, nominal, GENERATED, part=part)
        for number in range(len(hu))
    ]
    return SliceBank(hu, lung, np.zeros_like(lung), records), found & have_lungs_as(lung, real.lung)


def taken(bank: Bank, places: Sequence[int], similarity: NDArray[np.float64] | None = None) -> Bank:
    """The entries at these places; with ``similarity`` (N,) of the whole bank, theirs is written down."""
    records = [bank.records[place] for place in places]
    if similarity is not None:
        records = [
            replace(record, similarity=round(float(similarity[place]), 4))
            for record, place in zip(records, places, strict=True)
        ]
    arrays = {name: getattr(bank, name)[list(places)] for name in _arrays(bank)}
    return replace(bank, **arrays, records=records)


def joined(first: Bank, second: Bank) -> Bank:
    """The entries of both."""
    arrays = {name: np.concatenate([getattr(first, name), getattr(second, name)]) for name in _arrays(first)}
    return replace(first, **arrays, records=[*first.records, *second.records])


def some(bank: Bank, most: int, seed: int) -> Bank:
    """At most so many entries, drawn by the seed, in the bank's order."""
    order = make_rng(seed, "real entries").permutation(len(bank))
    return taken(bank, sorted(int(place) for place in order[:most]))


def _arrays(bank: NoduleBank | SliceBank) -> list[str]:
    return [field.name for field in fields(bank) if field.name != "records"]


def _name(seed: int, number: int) -> str:
    return f"generated_{seed}_{number:06d}"


MEASURE = (
    "1 / (1 + d / u), d: distance of the features to the nearest training image, u: usual d of real images"
)
LEAST = 4
"""Held-out images of a class that can say what is usual for it; with fewer, classes are not told apart."""


@dataclass(frozen=True)
class Resemblance:
    """Of each generated image.

    Args:
        similarity: (N,) 0 to 1.
        copied: (N,) bool.
    """

    similarity: NDArray[np.float64]
    copied: NDArray[np.bool_]


class RealSide:
    """What generated images are held against: training images as they were shown, and held-out ones.

    Args:
        data: the bank that the generator learned from, split as then.
        extractor: of the features.
    Raises:
        UserError: no held-out images.
    """

    def __init__(self, data: BankData, extractor: FeatureExtractor) -> None:
        self.extractor = extractor
        self.training = data.train.first_channel().as_seen()
        parts = [data.val.first_channel(), data.test.first_channel()]
        self.held_out = np.concatenate([part.images for part in parts])
        self.held_out_categories = [sample.category for part in parts for sample in part.samples]
        if not len(self.held_out):
            raise UserError(f"{data.dataset_dir}: no held-out images to hold generated ones against")

    def resemblance(self, images: Images, categories: Sequence[str]) -> Resemblance:
        """Of generated images (N, C, S, S) in [-1, 1]; each is held against its own class."""
        similarity, copied = np.zeros(len(images)), np.zeros(len(images), bool)
        for category in sorted(set(categories)):
            places = [place for place, name in enumerate(categories) if name == category]
            found = self._of_class(torch.from_numpy(np.ascontiguousarray(images[places, :1])), category)
            similarity[places], copied[places] = found.similarity, found.copied
        return Resemblance(similarity, copied)

    def _of_class(self, images: Tensor, category: str) -> Resemblance:
        training, held_out = self._real(category)
        by_features = nearest_training(
            *(extract(self.extractor, part) for part in (images, training, held_out))
        )
        by_pixels = nearest_training(*(pattern_vectors(part) for part in (images, training, held_out)))
        copied = (by_features.ranks < COPIED) | (by_pixels.ranks < COPIED)
        return Resemblance((1 / (1 + by_features.ratios())).numpy(), copied.numpy())

    def _real(self, category: str) -> tuple[Tensor, Tensor]:
        """Training and held-out images of the class, or of all where too few of it are held out."""
        own = [place for place, name in enumerate(self.held_out_categories) if name == category]
        if len(own) < LEAST:
            return torch.from_numpy(self.training.images), torch.from_numpy(self.held_out)
        kept = [place for place, s in enumerate(self.training.samples) if s.category == category]
        return torch.from_numpy(self.training.images[kept]), torch.from_numpy(self.held_out[own])


def most_similar(
    found: Resemblance, valid: NDArray[np.bool_], categories: Sequence[str], count: int
) -> list[int]:
    """Places of the valid images that are no copies and are most like real ones; most similar first.

    Args:
        count: wanted, in equal parts of each class; fewer where there are not so many.
    """
    usable = valid & ~found.copied
    names = sorted(set(categories))
    kept: list[int] = []
    for number, category in enumerate(names):
        share = count // len(names) + (number < count % len(names))
        own = [place for place in np.flatnonzero(usable).tolist() if categories[place] == category]
        kept += sorted(own, key=lambda place: -found.similarity[place])[:share]
    return sorted(kept, key=lambda place: -found.similarity[place])


REPORT, GALLERY = "generation.json", "gallery.png"
SHOWN = 36
SEVERAL = 4
"""Candidates for each image that is wanted, where no number is given."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wanted:
    """How many of a layer.

    Args:
        real: real ones at most, drawn from the whole bank by ``seed``.
        generated: generated ones, those that are most like real ones.
        candidates: drawn to choose from; None for four times as many.
        seed: of noise and choice.
    Raises:
        UserError: no such numbers.
    """

    real: int
    generated: int
    candidates: int | None = None
    seed: int = 0

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
        return max(1, SEVERAL * self.generated) if self.candidates is None else self.candidates


def generate(
    data: BankData,
    model: GeneratorModel,
    wanted: Wanted,
    extractor: FeatureExtractor,
    output_dir: str | os.PathLike[str],
    provenance: Provenance = UNKNOWN,
) -> dict[str, Any]:
    """Writes the bank of a layer with real and generated entries, a report and a gallery.

    Of the candidates those are left out that are no whole nodule (no lungs) and those that are copies of
    training images; of the rest the most similar to real ones are kept, see
    `bundles.lung_two_stage.generation.select`. Fewer than wanted are kept where there are not so many,
    which is said.

    Args:
        data: the bank that the model learned from, split as then.
        model: the generator.
        wanted: how many.
        extractor: of the features.
        output_dir: the bank's folder; whole or as it was before.
        provenance: what draws the candidates; the report has it.
    Returns:
        The report, as ``generation.json`` holds it.
    Raises:
        UserError: nothing is left, or the folder cannot be written.
    """
    candidates = model.draw(wanted.drawn, wanted.seed)
    bank: Any = NoduleBank if data.layer.name == "nodules" else SliceBank
    make: Any = made_nodules if bank is NoduleBank else made_slices
    source = bank.load(data.dataset_dir)
    everything, valid = make(candidates, model, source, wanted.seed)
    side = RealSide(data, extractor)
    found = side.resemblance(candidates.images, candidates.categories)
    places = most_similar(found, valid, candidates.categories, wanted.generated)
    kept = taken(everything, places, found.similarity)
    whole = joined(some(source, wanted.real, wanted.seed), kept)
    counts = {
        "real": len(whole) - len(kept),
        "generated": len(kept),
        "drawn": len(valid),
        "invalid": int((~valid).sum()),
        "copies": int((valid & found.copied).sum()),
    }
    _say(Path(output_dir), counts, wanted)
    report = {
        **provenance.record(),
        "layer": data.layer.name,
        "counts": counts,
        "similarity": _spread(found.similarity[places]),
        "similarity_of_candidates": _spread(found.similarity),
        "measure": MEASURE,
        "extractor": extractor.name,
        "wanted": asdict(wanted),
        "bank": str(data.dataset_dir),
    }
    with remade_folder(output_dir, REPORT) as folder:
        whole.save(folder)
        _gallery(folder / GALLERY, data.train.images, candidates.images[places])
        write_json(folder / REPORT, report)
    return report


def _gallery(path: Path, real: Images, generated: Images) -> None:
    """The first real and the most similar generated images, without alpha."""
    shown = {"real": real[:SHOWN, :1], "generated, most similar first": generated[:SHOWN, :1]}
    save_galleries(path, {name: torch.from_numpy(each) for name, each in shown.items() if len(each)})


def _spread(similarity: np.ndarray) -> dict[str, float] | None:
    """Least, median and largest; None of nothing."""
    if not len(similarity):
        return None
    low, middle, high = np.quantile(similarity, [0, 0.5, 1]).round(4).tolist()
    return {"least": low, "median": middle, "largest": high}


def _say(folder: Path, counts: dict[str, int], wanted: Wanted) -> None:
    if not counts["real"] + counts["generated"]:
        raise UserError(
            f"{folder}: of {counts['drawn']} candidates none is left ({counts['invalid']} invalid, "
            f"{counts['copies']} copies); train longer, or draw more with --candidates"
        )
    logger.info("%s: %s", folder, ", ".join(f"{count} {name}" for name, count in counts.items()))
    if counts["generated"] < wanted.generated:
        logger.warning(
            "%s: %d of %d wanted; train longer, or draw more candidates",
            folder,
            counts["generated"],
            wanted.generated,
        )


COMMANDS = {
    "nodules": "--config_file bundles/lung_two_stage/configs/train_nodules.yaml",
    "healthy_slices": "--config_file \"['bundles/lung_two_stage/configs/train_nodules.yaml',"
    "'bundles/lung_two_stage/configs/train_healthy_slices.yaml']\"",
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
        name: ``nodules`` or ``healthy_slices``.
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
