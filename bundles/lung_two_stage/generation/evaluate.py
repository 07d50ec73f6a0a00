"""Table II: trained generators compared with images of other patients by FID, KID and inception score.

In the place of Inception stands a small classifier of nodule crops.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.networks.blocks import Convolution
from torch import Tensor, nn

from bundles.lung_two_stage.banks import RECORDS
from bundles.lung_two_stage.generation.bank_data import BankData
from bundles.lung_two_stage.generation.select import GeneratorModel, how_to_train
from bundles.lung_two_stage.segmentation.inference import check_unseen
from common.errors import UserError
from common.files import atomic_write, write_json
from common.handlers.image_logging import save_galleries
from common.inference.checkpoint import load_weights, model_info, network_for
from common.inference.prepare_batch import prediction_target_condition
from common.metrics.bootstrap import Resamples, Value, few_patients
from common.metrics.diversity import Classifier, class_probabilities, score_with_interval
from common.metrics.evaluate import RealImages, SetEvaluator, format_number, format_table
from common.metrics.features import FeatureExtractor
from common.metrics.prdc import NEIGHBOURS
from common.metrics.pretrained import inception_at_hand, inception_classifier
from common.rng import make_rng

Row = dict[str, list[Value]]
"""The values of a method's models, by metric."""
ModelPaths = str | Sequence[str]
GALLERY_IMAGES = 24
SHOWN = ("is_", "fid_", "kid_", "excess_kid_", "coverage", "copies_by_features")
"""What the table's metrics begin with."""
HOW_TO_TRAIN = (
    "python -m monai.bundle run training --config_file bundles/lung_two_stage/configs/train_classifier.yaml"
)

logger = logging.getLogger(__name__)


def table_of(rows: Mapping[str, Row]) -> str:
    """Formats a line for each method: the mean over its models, ± their standard deviation where several."""
    metrics = [name for name in next(iter(rows.values())) if name.startswith(SHOWN)]
    head = ["method", *metrics, "models"]
    lines = [
        [name, *(_cell(row[metric]) for metric in metrics), str(len(row[metrics[0]]))]
        for name, row in rows.items()
    ]
    return format_table([head, *lines])


def _cell(values: Sequence[Value]) -> str:
    means = np.array([value.mean for value in values])
    spread = f" ± {format_number(float(means.std(ddof=1)))}" if len(means) > 1 else ""
    return format_number(float(means.mean())) + spread


def by_metric(results: Sequence[Mapping[str, Value]]) -> Row:
    """Groups the results of a method's models by metric."""
    return {name: [result[name] for result in results] for name in results[0]}


class GeneratorComparison:
    """Compares equally large sets of generated images and of baselines with held-out real images.

    The baselines: ``real real``, training images in the target of generated ones, as good as it gets;
    ``mean image``, the training images' mean, as a collapsed generator could draw it; ``blurred real``, the
    held-out images blurred by a pixel. Excess KID is 0 for ``real real`` and 1 for ``blurred real``.

    Args:
        models: by the name of the method: a model's file, or those of several seeds.
        bank_dir: what the models were trained with.
        extractor: of the features.
        classifiers: each gives an inception score of its name.
        heldout_dir: a bank of other patients; None for the test patients of ``bank_dir``.
        num_samples: images of each set; None for as many as there are held-out images.
        layer: ``nodules`` or ``healthy_slices``.
        split_seed: of the split in training.
        resamples: of the bootstrap.
        seed: of noise, bootstrap and baselines.
        device: where networks run.
    Raises:
        UserError: a model is missing or differs in size or window, or there are too few images.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from bundles.lung_two_stage.banks import NoduleBank, NoduleRecord
        >>> from common.metrics.features import RandomVGG
        >>> from common.paths import bundle_root
        >>> model = bundle_root("lung_two_stage") + "/models/model.pt"
        >>> alpha = np.pad(np.full((16, 8, 8), 255, np.uint8), ((0, 0), (12, 12), (12, 12)))
        >>> records = [NoduleRecord(f"n{k}", f"patient_{k}", "", 8.0, 1.0) for k in range(16)]
        >>> bank = NoduleBank(np.int16(alpha) * 3 - 850, alpha, records)
        >>> with TemporaryDirectory() as work:
        ...     own, others = (bank.take(r).save(f"{work}/{r}") for r in (range(10), range(10, 16)))
        ...     compared = GeneratorComparison({"ours": model}, own, RandomVGG(), heldout_dir=others)
        ...     list(compared.run(work + "/evaluation", facts={})["methods"])  # doctest: +ELLIPSIS
        <BLANKLINE>
        6 held-out images of 6 patients, 6 generated each
        method ...
        ['ours', 'real real', 'mean image', 'blurred real']
    """

    def __init__(
        self,
        models: Mapping[str, ModelPaths],
        bank_dir: str | os.PathLike[str],
        extractor: FeatureExtractor,
        classifiers: Sequence[Classifier] = (),
        heldout_dir: str | os.PathLike[str] | None = None,
        num_samples: int | None = None,
        layer: str = "nodules",
        split_seed: int = 0,
        resamples: int = 200,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.paths = {
            name: [paths] if isinstance(paths, str) else list(paths) for name, paths in models.items()
        }
        self.layer, self.heldout_dir, self.classifiers = layer, heldout_dir, list(classifiers)
        self.resamples, self.seed, self.device = resamples, seed, device
        self.data = BankData.of_model(self._shared_info(), bank_dir, layer, split_seed)
        heldout = self.data.test if heldout_dir is None else self.data.other_bank(heldout_dir)
        self.held_out = heldout.first_channel()
        check_unseen({path: path for paths in self.paths.values() for path in paths}, self.held_out.samples)
        self.count = len(self.held_out) if num_samples is None else num_samples
        if min(self.count, len(self.held_out)) <= NEIGHBOURS:
            raise UserError(
                f"{self.count} generated and {len(self.held_out)} held-out images: too few to evaluate; "
                f"at least {NEIGHBOURS + 1} are needed of both"
            )
        self.evaluator = self._evaluator(extractor)

    def run(self, folder: str | os.PathLike[str], facts: Mapping[str, Any]) -> dict[str, Any]:
        """Evaluates all models; writes ``metrics.json``, ``table.txt``, ``gallery.png``; prints the table."""
        rows: dict[str, Row] = {}
        shown = {"real": torch.from_numpy(self.held_out.images)}
        for name, paths in self.paths.items():
            sets = [self._draw(path) for path in paths]
            rows[name] = by_metric([{**self._scores(s), **self.evaluator(s).values} for s in sets])
            shown[name] = sets[0]
        rows |= self._baselines()
        patients = len(set(self.evaluator.real.patients))
        table = "\n".join([table_of(rows), *filter(None, [few_patients(patients)])])
        result = {
            **facts,
            "extractor": self.evaluator.extractor.name,
            "classifiers": [f"is_{each.name}" for each in self.classifiers],
            "held_out": len(self.held_out),
            "held_out_patients": patients,
            "num_samples": self.count,
            "methods": {
                name: {metric: [value.plain() for value in values] for metric, values in row.items()}
                for name, row in rows.items()
            },
        }
        target = Path(folder)
        galleries = {name: images[:GALLERY_IMAGES] for name, images in shown.items()}
        save_galleries(target / "gallery.png", galleries, columns=4)
        with atomic_write(target / "table.txt") as temporary:
            temporary.write_text(table + "\n", encoding="utf-8")
        write_json(target / "metrics.json", result)
        counts = f"{len(self.held_out)} held-out images of {patients} patients, {self.count} generated each"
        print(f"\n{counts}\n{table}\n\nwritten to {target}")
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

    def _evaluator(self, extractor: FeatureExtractor) -> SetEvaluator:
        training, validation = self.data.train.first_channel().as_seen(), self.data.val.first_channel()
        real = RealImages(
            torch.from_numpy(self.held_out.images),
            [sample.patient for sample in self.held_out.samples],
            torch.from_numpy(validation.images),
            torch.from_numpy(training.images),
            [sample.patient for sample in training.samples],
        )
        return SetEvaluator(real, extractor, self.seed, self.resamples, device=self.device)

    def _draw(self, path: str) -> Tensor:
        """The HU window of a model's images, with the training set's mixture of classes."""
        model = GeneratorModel.load(path, how_to_train(self.layer), self.device)
        drawn = model.draw(self.count, self.seed, self.data.train.classes.tolist())
        return torch.from_numpy(np.ascontiguousarray(drawn.images[:, :1]))

    def _baselines(self) -> dict[str, Row]:
        results = self.evaluator.baselines(self.count)
        training = self.data.train.first_channel()
        indices = np.linspace(0, len(training) - 1, self.count).round().astype(int)  # some repeated
        mean = self.evaluator.real.training.mean(0, keepdim=True).expand(self.count, -1, -1, -1)
        images: dict[str, tuple[Tensor, Sequence[str] | None]] = {
            "real real": (
                torch.from_numpy(training.images[indices]),
                [training.samples[index].patient for index in indices],
            ),
            "mean image": (mean, None),
            "blurred real": (self.evaluator.blurred[0], self.evaluator.real.patients),
        }
        return {
            name: by_metric([{**self._scores(*each), **results[name.replace(" ", "_")].values}])
            for name, each in images.items()
        }

    def _scores(self, images: Tensor, patients: Sequence[str] | None = None) -> dict[str, Value]:
        rng = make_rng(self.seed, "inception score")
        resamples = Resamples.draw(patients, len(images), self.resamples, rng)
        return {
            f"is_{classifier.name}": score_with_interval(
                class_probabilities(classifier, images, device=self.device), resamples
            )
            for classifier in self.classifiers
        }


def first_channels(output: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> tuple[Tensor, Tensor]:
    """An ``output_transform``: the HU window of generated and real images, (B, 1, S, S) in [-1, 1] each.

    Example:
        >>> image = torch.arange(2.0).reshape(1, 2, 1, 1)  # HU window 0, alpha 1
        >>> first_channels({"pred": image, "label": image, "image": image})[0].flatten()
        tensor([0.])
    """
    prediction, real, _ = prediction_target_condition(output)
    return prediction[:, :1], real[:, :1]


def alphas(output: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> tuple[Tensor, Tensor]:
    """An ``output_transform``: the last channel of both (alpha of nodules), (B, 1, S, S) in [-1, 1] each.

    Example:
        >>> image = torch.arange(2.0).reshape(1, 2, 1, 1)  # HU window 0, alpha 1
        >>> alphas({"pred": image, "label": image, "image": image})[0].flatten()
        tensor([1.])
    """
    prediction, real, _ = prediction_target_condition(output)
    return prediction[:, -1:], real[:, -1:]


class CropClassifier(nn.Module):
    """Maps crops (B, 1, S, S) in [-1, 1] to logits (B, K): strided convolutions, global mean, linear layer.

    Args:
        classes: K, at least 2.
        widths: channels of the convolutions.
        dropout: before the last layer.
    Raises:
        UserError: fewer than two classes.

    Example:
        >>> CropClassifier(classes=3)(torch.zeros(2, 1, 32, 32)).shape
        torch.Size([2, 3])
    """

    def __init__(self, classes: int = 3, widths: Sequence[int] = (16, 32, 64), dropout: float = 0.2) -> None:
        super().__init__()
        if classes < 2:
            raise UserError(f"a classifier of {classes} classes: the bank must have at least 2")
        self.layers = nn.Sequential(
            *(
                Convolution(2, source, target, strides=2, act="relu", norm="batch", adn_ordering="NA")
                for source, target in pairwise([1, *widths])
            ),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(widths[-1], classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        """(B, 1, S, S) -> (B, K)."""
        logits: Tensor = self.layers(images)
        return logits


class NoduleClassifier:
    """A trained `CropClassifier` as a `common.metrics.diversity.Classifier`.

    Its name is that of its classes: ``nodule_category`` or ``nodule_diameter``.

    Args:
        ckpt_path: its model.
        device: where it runs.
    Raises:
        UserError: there is no model.
    """

    def __init__(self, ckpt_path: str | os.PathLike[str], device: torch.device | str = "cpu") -> None:
        self.info = model_info(ckpt_path)
        network = network_for(ckpt_path, otherwise=CropClassifier())
        self.network = load_weights(network, ckpt_path, HOW_TO_TRAIN).to(device)
        self.name = f"nodule_{self.info.get('classes_by', 'class')}"
        self.size = int(self.info.get("image_size", 32))

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """(B, 1, H, W) in [-1, 1] -> probabilities (B, K); crops are resized to those it learned from."""
        if images.shape[-1] != self.size:
            images = nn.functional.interpolate(images.float(), (self.size, self.size), mode="bilinear")
        return torch.softmax(self.network(images.float()), dim=1)


def available_classifiers(
    classifier_path: str | os.PathLike[str] | None,
    inception_weights: str | os.PathLike[str] | None = None,
    device: torch.device | str = "cpu",
) -> list[Classifier]:
    """Loads Inception where its weights are on this machine, and the nodule classifier where it is trained.

    Nothing is downloaded. A log line says what is missing.

    Args:
        classifier_path: the model of ``train_classifier.yaml``.
        inception_weights: a TorchScript file; None to look into torch's hub folder.
    Raises:
        UserError: a named file cannot be read.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:  # as the training of three classes by diameter leaves it
        ...     torch.save(CropClassifier(classes=3).state_dict(), f"{folder}/model.pt")
        ...     write_json(f"{folder}/model.json", {"classes_by": "diameter"})
        ...     classifier = available_classifiers(f"{folder}/model.pt")[-1]
        >>> classifier.name, classifier(torch.zeros(4, 1, 32, 32)).shape
        ('nodule_diameter', torch.Size([4, 3]))
    """
    classifiers: list[Classifier] = []
    weights = inception_at_hand() if inception_weights is None else Path(inception_weights)
    if weights is not None:
        classifiers.append(inception_classifier(weights).to(device))
    if classifier_path is not None and Path(classifier_path).is_file():
        classifiers.append(NoduleClassifier(classifier_path, device))
    else:
        logger.warning("no inception score by a classifier of nodules: train one: %s", HOW_TO_TRAIN)
    return classifiers


def held_out_bank(work_dir: str | os.PathLike[str], layer: str) -> str | None:
    """The extraction's nodules of test patients, where there are any; None for other layers.

    Example:
        >>> held_out_bank("no such folder", "nodules") is None
        True
    """
    bank = Path(work_dir) / "extraction" / "test_nodules"
    return str(bank) if layer == "nodules" and (bank / RECORDS).is_file() else None
