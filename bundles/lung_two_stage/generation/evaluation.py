"""Table II: generators of nodules against real ones of other patients, by FID and inception score."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bundles.lung_two_stage.generation.candidates import GeneratorModel
from bundles.lung_two_stage.generation.data import BankImages
from bundles.lung_two_stage.generation.layers import bank_of, how_to_train
from bundles.lung_two_stage.generation.table import Row, gathered, plain, table_of
from bundles.lung_two_stage.segmentation.methods import refuse_seen
from common.errors import UserError
from common.files import atomic_write, write_json
from common.handlers.galleries import save_galleries
from common.inference.models import model_info
from common.metrics.bootstrap import Resamples, Value, few_patients
from common.metrics.features import FeatureExtractor
from common.metrics.inception_score import Classifier, class_probabilities, score_with_interval
from common.metrics.prdc import NEIGHBOURS
from common.metrics.set_evaluation import RealImages, SetEvaluator
from common.random import generator

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
        layer: ``nodules`` or ``normals``.
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
        numbers = generator(self.judges.seed, "inception score")
        resamples = Resamples.over(patients, len(images), self.judges.resamples, numbers)
        return {
            f"is_{classifier.name}": score_with_interval(
                class_probabilities(classifier, images, device=self.judges.device), resamples
            )
            for classifier in self.judges.classifiers
        }
