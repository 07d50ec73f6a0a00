"""Table II: generators of nodules against real ones of other patients, by FID and inception score."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from bundles.lung_two_stage.generation.bank_data import BankImages
from bundles.lung_two_stage.generation.select import GeneratorModel, bank_of, how_to_train
from bundles.lung_two_stage.segmentation.inference import refuse_seen
from common.data.intensity import Window, from_network
from common.errors import UserError
from common.files import atomic_write, write_json
from common.handlers.image_logging import save_galleries
from common.inference.checkpoint import model_info
from common.inference.prepare_batch import prediction_target_condition
from common.inference.sampling import SampleNumbers
from common.inference.writers import SAMPLES, SampleWriter, write_picture, write_slice
from common.metrics.bootstrap import Resamples, Value, few_patients
from common.metrics.evaluate import RealImages, SetEvaluator
from common.metrics.features import FeatureExtractor
from common.metrics.inception_score import Classifier, class_probabilities, score_with_interval
from common.metrics.prdc import NEIGHBOURS
from common.metrics.tables import format_number, format_table
from common.provenance import UNKNOWN, Provenance
from common.rng import make_rng

Row = dict[str, list[Value]]
"""Of a method: by metric the values of its models."""


def table_of(rows: Mapping[str, Row]) -> str:
    """A line for each method; mean ± standard deviation over its models where it has several."""
    metrics = [name for name in next(iter(rows.values())) if _shown(name)]
    head = ["method", *metrics, "models"]
    lines = [
        [name, *(_cell(row[metric]) for metric in metrics), str(len(row[metrics[0]]))]
        for name, row in rows.items()
    ]
    return format_table([head, *lines])


def _shown(metric: str) -> bool:
    leading = metric.startswith(("is_", "fid_", "kid_", "excess_kid_"))
    return leading or metric in ("coverage", "copies_by_features")


def _cell(values: Sequence[Value]) -> str:
    means = np.array([value.mean for value in values])
    spread = f" ± {format_number(float(means.std(ddof=1)))}" if len(means) > 1 else ""
    return format_number(float(means.mean())) + spread


def gathered(measured: Sequence[Mapping[str, Value]]) -> Row:
    """The values of a method's models, by metric."""
    return {name: [each[name] for each in measured] for name in measured[0]}


def plain(row: Row) -> dict[str, Any]:
    """For JSON: a list of values with their intervals for each metric."""
    return {name: [value.plain() for value in values] for name, values in row.items()}


SHOWN = 24
Paths = str | Sequence[str]


@dataclass(frozen=True)
class Judges:
    """What images are judged by.

    Args:
        extractor: of the features.
        classifiers: of the inception scores; each gives one of its name.
        resamples: of the bootstrap.
        seed: of noise, bootstrap and baselines.
        device: where all works.
    """

    extractor: FeatureExtractor
    classifiers: Sequence[Classifier]
    resamples: int = 200
    seed: int = 0
    device: torch.device | str = "cpu"


class Comparison:
    """Sets of as many generated images each, measured alike, beside baselines of real ones.

    ``real real`` are training images in the place of generated ones: as good as one can get. ``mean image``
    is the training images' mean: what a collapsed generator could draw. ``blurred real`` are the held-out
    images themselves, blurred by a pixel: excess KID is 1 there, and 0 for ``real real``.

    Args:
        models: by the name of the method: a model's file, or several of different seeds.
        bank_dir: what they learned from.
        judges: see there.
        heldout_dir: a bank of other patients; None for the test patients of ``bank_dir``.
        num_samples: of each set; None for as many as there are held-out images.
        layer: ``nodules`` or ``healthy_slices``.
        split_seed: as in the trainings.
    Raises:
        UserError: a model is missing or differs in size or window, or there are too few images.
    """

    def __init__(
        self,
        models: Mapping[str, Paths],
        bank_dir: str | os.PathLike[str],
        judges: Judges,
        heldout_dir: str | os.PathLike[str] | None = None,
        num_samples: int | None = None,
        layer: str = "nodules",
        split_seed: int = 0,
    ) -> None:
        self.paths = {
            name: [paths] if isinstance(paths, str) else list(paths) for name, paths in models.items()
        }
        self.layer, self.judges, self.heldout_dir = layer, judges, heldout_dir
        info = self._shared_info()
        self.data = bank_of(info, bank_dir, layer, split_seed)
        self.held_out = self._held_out()
        refuse_seen({path: path for paths in self.paths.values() for path in paths}, self.held_out.samples)
        self.count = len(self.held_out) if num_samples is None else num_samples
        if min(self.count, len(self.held_out)) <= NEIGHBOURS:
            raise UserError(
                f"{self.count} generated and {len(self.held_out)} held-out images: too few to evaluate; "
                f"at least {NEIGHBOURS + 1} are needed of both"
            )
        self.evaluator = self._evaluator()

    def run(self, folder: str | os.PathLike[str], facts: Mapping[str, Any]) -> dict[str, Any]:
        """Measures all; writes ``metrics.json``, ``table.txt`` and ``gallery.png``, prints the table."""
        rows: dict[str, Row] = {}
        shown = {"real": torch.from_numpy(self.held_out.images)}
        for name, paths in self.paths.items():
            drawn = [self._drawn(path) for path in paths]
            rows[name] = gathered([self._measured(images) for images in drawn])
            shown[name] = drawn[0]
        rows |= self._baselines()
        patients = len(set(self.evaluator.real.patients))
        table = "\n".join([table_of(rows), *filter(None, [few_patients(patients)])])
        result = {
            **facts,
            "extractor": self.judges.extractor.name,
            "classifiers": [f"is_{each.name}" for each in self.judges.classifiers],
            "held_out": len(self.held_out),
            "held_out_patients": patients,
            "num_samples": self.count,
            "methods": {name: plain(row) for name, row in rows.items()},
        }
        place = Path(folder)
        save_galleries(place / "gallery.png", {name: each[:SHOWN] for name, each in shown.items()}, columns=4)
        with atomic_write(place / "table.txt") as temporary:
            temporary.write_text(table + "\n", encoding="utf-8")
        write_json(place / "metrics.json", result)
        told = f"{len(self.held_out)} held-out images of {patients} patients, {self.count} generated each"
        print(f"\n{told}\n{table}\n\nin {place}")
        return result

    def _shared_info(self) -> Mapping[str, Any]:
        infos = {path: model_info(path) for paths in self.paths.values() for path in paths}
        if not infos:
            raise UserError("models: none given; name at least one, {'W-CapsuleGAN': '.../model.pt'}")
        for path, info in infos.items():
            if not Path(path).is_file() or not info:
                raise UserError(f"{path}: no trained model yet; train first: {how_to_train(self.layer)}")
        first, known = next(iter(infos.items()))
        for path, info in infos.items():
            if any(info.get(key) != known.get(key) for key in ("image_size", "window_hu", "layer")):
                raise UserError(f"{path}: another size, window or layer than {first}; compare like with like")
        return known

    def _held_out(self) -> BankImages:
        if self.heldout_dir is not None:
            return self.data.whole(self.heldout_dir).first_channel()
        return self.data.test.first_channel()

    def _evaluator(self) -> SetEvaluator:
        training, validation = self.data.train.first_channel().as_seen(), self.data.val.first_channel()
        real = RealImages(
            torch.from_numpy(self.held_out.images),
            [sample.patient for sample in self.held_out.samples],
            torch.from_numpy(validation.images),
            torch.from_numpy(training.images),
            [sample.patient for sample in training.samples],
        )
        judges = self.judges
        return SetEvaluator(real, judges.extractor, judges.seed, judges.resamples, device=judges.device)

    def _drawn(self, path: str) -> Tensor:
        """The HU window of a model's images, in the training set's mixture of classes."""
        model = GeneratorModel.load(path, how_to_train(self.layer), self.judges.device)
        drawn = model.draw(self.count, self.judges.seed, self.data.train.classes.tolist())
        return torch.from_numpy(np.ascontiguousarray(drawn.images[:, :1]))

    def _measured(self, images: Tensor) -> dict[str, Value]:
        return {**self._scores(images), **self.evaluator(images).values}

    def _baselines(self) -> dict[str, Row]:
        found = self.evaluator.baselines(self.count)
        training = self.data.train
        places = np.linspace(0, len(training.images) - 1, self.count).round().astype(int)  # some repeated
        mean = self.evaluator.real.training.mean(0, keepdim=True).expand(self.count, -1, -1, -1)
        images: dict[str, tuple[Tensor, Sequence[str] | None]] = {
            "real real": (
                torch.from_numpy(np.ascontiguousarray(training.images[places, :1])),
                [training.samples[place].patient for place in places],
            ),
            "mean image": (mean, None),
            "blurred real": (self.evaluator.blurred[0], self.evaluator.real.patients),
        }
        return {
            name: gathered([{**self._scores(*each), **found[name.replace(" ", "_")].values}])
            for name, each in images.items()
        }

    def _scores(self, images: Tensor, patients: Sequence[str] | None = None) -> dict[str, Value]:
        numbers = make_rng(self.judges.seed, "inception score")
        resamples = Resamples.draw(patients, len(images), self.judges.resamples, numbers)
        return {
            f"is_{classifier.name}": score_with_interval(
                class_probabilities(classifier, images, device=self.judges.device), resamples
            )
            for classifier in self.judges.classifiers
        }


def first_channels(output: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> tuple[Tensor, Tensor]:
    """An ``output_transform``: the HU of generated and of real images, (B, 1, S, S) in [-1, 1] each."""
    prediction, real, _ = prediction_target_condition(output)
    return prediction[:, :1], real[:, :1]


def alphas(output: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> tuple[Tensor, Tensor]:
    """An ``output_transform``: the last channel of both, of nodules alpha: (B, 1, S, S) in [-1, 1] each."""
    prediction, real, _ = prediction_target_condition(output)
    return prediction[:, -1:], real[:, -1:]


ALPHA = "alpha"
ALPHA_VALUES = Window(0, 255)
"""No HU: 0 is no nodule, 255 all of it."""


class NoduleWriter(SampleWriter):
    """As `common.inference.writers.SampleWriter`, with the alpha of each nodule under ``alpha/``.

    An alpha has its crop's name; 0 to 255 in both file types. A NIfTI pixel has the size of those that were
    learned from.

    Args:
        numbers, seed, output_dir, info, file_type, grid, provenance: as there.
    """

    def __init__(
        self,
        numbers: SampleNumbers,
        seed: int,
        output_dir: str | os.PathLike[str],
        info: Mapping[str, Any],
        file_type: str = "png",
        grid: int = 64,
        provenance: Provenance = UNKNOWN,
    ) -> None:
        super().__init__(numbers, seed, output_dir, info, file_type, grid, provenance)
        self.spacing_mm = float(info.get("spacing_mm", 1.0))

    def keep(self, position: int, prediction: Tensor) -> np.ndarray:
        """HU window and, where there is one, alpha: (C, S, S) float32 in [0, 1]."""
        super().keep(position, prediction)
        return from_network(prediction.float().cpu().numpy())

    def write(self, source: Path, slices: list[np.ndarray]) -> Path:
        """The alpha's file, then the crop's."""
        crop, *alpha = slices[0]
        for values in alpha:
            path = self.folder / ALPHA / source.relative_to(self.folder / SAMPLES)
            self._write(path, values, ALPHA_VALUES, self.text(source))
        self._write(source, crop, self.window, self.text(source))
        return source

    def _write(self, path: Path, unit: np.ndarray, window: Window | None, text: PngInfo) -> None:
        if self.window is None or window is None:
            write_picture(path, unit, text)
        else:
            write_slice(path, unit, window, self.spacing_mm, self.provenance)
