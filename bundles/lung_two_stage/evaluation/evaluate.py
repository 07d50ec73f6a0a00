"""Stage 6: Table III, whether nodules survived, and what a diagnosis gains."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bundles.lung_two_stage.banks import SliceBank
from bundles.lung_two_stage.composition.shards import Composites
from bundles.lung_two_stage.downstream.data import CATEGORY, NODULE, Slices, Sources, class_names, of_bank
from bundles.lung_two_stage.downstream.network import SliceClassifier
from bundles.lung_two_stage.downstream.utility import Utility, classification, segmentation
from bundles.lung_two_stage.enhancement.data import refuse_shared_patients, to_images
from bundles.lung_two_stage.enhancement.effect import changed_share, lungs_of, with_equal_noise
from bundles.lung_two_stage.enhancement.nodule_preservation import NoduleDice, Segmenter
from common.data.intensity import Window, from_network, to_hu
from common.data.transforms import resize_image
from common.files import atomic_write, write_json
from common.inference.checkpoint import load_weights, model_info, model_window, network_for
from common.inference.sampling import latents
from common.metrics.bootstrap import Resamples, Value
from common.metrics.evaluate import RealImages, SetEvaluator, better_set
from common.metrics.faithfulness import contrast_parts, faithfulness, lesion_contrast
from common.metrics.features import FeatureExtractor
from common.metrics.inception_score import class_probabilities, score_with_interval
from common.metrics.kid import kid_change
from common.metrics.tables import format_interval, format_number, format_table, patients_warning
from common.provenance import SHEET, png_text
from common.rng import make_rng
from common.visualization import sheet, tiled, unit_range

logger = logging.getLogger(__name__)


ENHANCED, COMPOSITES = "enhanced", "composites"
HOW_TO_TRAIN = "train_healthy_slices.yaml with the baseline's overlay, on slices with nodules"


def drawn_numbers(total: int, count: int, seed: int) -> list[int]:
    """``count`` numbers of ``total``, sorted; all of fewer. Equal for equal arguments."""
    return sorted(make_rng(seed, "evaluation", "composites").permutation(total)[:count].tolist())


def chain_sets(
    composites_dir: str | os.PathLike[str],
    enhanced_dir: str | os.PathLike[str],
    window: Window,
    count: int,
    seed: int = 0,
) -> tuple[dict[str, Tensor], Tensor]:
    """The same composites before and after the enhancement.

    Returns:
        Images (N, 1, H, W) in [-1, 1] by name, and their masks (N, 1, H, W) in {0, 1}.
    Raises:
        UserError: shards are not finished.
    """
    folders = {COMPOSITES: Composites(composites_dir), ENHANCED: Composites(enhanced_dir)}
    total = min(len(folder) for folder in folders.values())
    numbers = drawn_numbers(total, count, seed)
    images = {
        name: to_images(np.stack([folder[number].image for number in numbers]), window)
        for name, folder in folders.items()
    }
    masks = np.stack([folders[ENHANCED][number].mask > 0 for number in numbers])
    return images, torch.from_numpy(masks.astype(np.float32))[:, None]


def baseline_sets(
    paths: Mapping[str, str | os.PathLike[str]],
    count: int,
    image_size: tuple[int, int],
    window: Window,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Slices (``count``, 1, H, W) in [-1, 1] of each trained baseline; the others are logged in one line.

    Args:
        paths: of the models, by name.
        window: that the images are compared in.
    """
    found = {}
    for name, path in paths.items():
        if Path(path).is_file():
            found[name] = baseline_slices(path, count, image_size, window, seed)
        else:
            logger.info(f"{path}: {name} is not trained, it is left out")
    return found


def bases(composites_dir: str | os.PathLike[str], count: int, seed: int = 0) -> list[str]:
    """The healthy slices that the composites of `chain_sets` were laid on: those of one are one patient's."""
    folder = Composites(composites_dir)
    found = (folder[number].record["normal"] for number in drawn_numbers(len(folder), count, seed))
    return [normal.get("patient") or normal["name"] for normal in found]


@torch.inference_mode()
def baseline_slices(
    path: str | os.PathLike[str], count: int, image_size: tuple[int, int], window: Window, seed: int = 0
) -> Tensor:
    """Samples of a generator of noise, brought to the size and the window of the others.

    Raises:
        UserError: the model cannot be read, or is no network of this project.
    """
    info = model_info(path)
    network = load_weights(network_for(path, nn.Identity()), path, HOW_TO_TRAIN)
    noise = latents(seed, range(count), int(info["latent"]))
    classes = int(getattr(network, "classes", 0))
    images = []
    for first in range(0, count, 32):
        inputs = [noise[first : first + 32]]
        if classes:
            inputs.append(torch.arange(first, first + len(inputs[0])) % classes)
        images.append(network(*inputs)[:, :1].float())
    return in_window(_sized(torch.cat(images), image_size), model_window(info), window)


def in_window(images: Tensor, own: Window, window: Window) -> Tensor:
    """Images in [-1, 1] of one HU window in another, clipped."""
    hu = (images + 1) / 2 * own.width + own.lower
    return ((hu - window.lower) / window.width * 2 - 1).clamp(-1, 1)


def _sized(images: Tensor, image_size: tuple[int, int]) -> Tensor:
    if tuple(images.shape[2:]) == image_size:
        return images
    resized = [resize_image(image[0].numpy(), *image_size) for image in (images + 1) / 2]
    return torch.from_numpy(np.stack(resized))[:, None].float() * 2 - 1


EDGE = 0.35
"""How strongly a nodule's outline is drawn."""


def save_panel(
    path: str | os.PathLike[str],
    composites: Tensor,
    enhanced: Tensor,
    masks: Tensor,
    real: Tensor,
    count: int = 6,
) -> None:
    """A row for each of the first ``count`` composites: itself, enhanced, the change, its mask, a real slice.

    The change is scaled to its own maximum over the panel, which its title states in per cent of the window.

    Args:
        path: the PNG file, written atomically.
        composites, enhanced, real: (N, 1, H, W) in [-1, 1]; real slices belong to no row.
        masks: (N, 1, H, W), nodules above 0.
    """
    rows = min(count, len(composites))
    places = torch.arange(rows) % len(real)
    before, after = unit_range(composites[:rows]), unit_range(enhanced[:rows])
    change = (after - before).abs()
    largest = max(float(change.max()), 1e-6)
    outlined = (before * (1 - EDGE) + EDGE * (masks[:rows] > 0).float()).clamp(0, 1)
    columns = [before, after, change / largest, outlined, unit_range(real[places])]
    titles = ("composite", "enhanced", f"change, white = {largest:.0%}", "mask", "real (another patient)")
    with atomic_write(path) as temporary:
        picture = sheet(tiled(columns), titles, [f"composite {number}" for number in range(rows)])
        picture.save(temporary, format="PNG", pnginfo=png_text(SHEET))


REAL, BLURRED = "real_real", "blurred_real"
SHOWN = (
    *("fid_", "kid_", "excess_kid_", "precision", "recall", "density", "coverage", "pair_"),
    *("copies_by_features", "is_"),
)


class SliceClassifierScores(nn.Module):
    """A trained diagnosis as the classifier of an inception score, for slices of its own window.

    Args:
        network: (B, 1, H, W) in [-1, 1] -> logits (B, K).
        name: part of the score's.
    """

    def __init__(self, network: nn.Module, name: str = "diagnosis") -> None:
        super().__init__()
        self.network, self.name = network.eval(), name

    def forward(self, images: Tensor) -> Tensor:
        """Class probabilities (B, K)."""
        return torch.softmax(self.network(images), dim=1)


def load_classifier(path: str | os.PathLike[str]) -> SliceClassifierScores | None:
    """The diagnosis at ``path``; its number of classes becomes part of the score's name.

    None, said in one line, where there is none.

    Raises:
        UserError: the file cannot be read or is no network of this project.
    """
    if not Path(path).is_file():
        logger.info(f"{path}: no diagnosis yet, the inception score is left out")
        return None
    network = load_weights(network_for(path, nn.Identity()), path, "run training of train_diagnosis.yaml")
    classes = len(model_info(path).get("classes", []))
    return SliceClassifierScores(network, f"diagnosis_of_{classes}")


def compare(
    evaluator: SetEvaluator,
    sets: Mapping[str, Tensor],
    classifier: SliceClassifierScores | None,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """Every metric of every set (N, 1, H, W), of real slices in the place of generated ones and of the test
    slices, blurred.

    Sets are cut to equal numbers: nearly all of these metrics depend on it.

    Returns:
        Plain data: metric -> set -> value.
    """
    count = min(len(images) for images in sets.values())
    values = {name: _measured(evaluator, images[:count], classifier, seed) for name, images in sets.items()}
    found = evaluator.baselines(count)
    test, patients = evaluator.real.test, evaluator.real.patients
    for name, images in ((REAL, test), (BLURRED, evaluator.blurred[0])):
        certainty = _certainty(images, classifier, evaluator.count, seed, patients)
        values[name] = {**found[name].values, **certainty}
    names = [name for name in next(iter(values.values())) if name.startswith(SHOWN)]
    return {
        name: {
            "better": "higher" if name.startswith("is_") else better_set(name),
            **{method: found[name].plain() for method, found in values.items()},
        }
        for name in names
    }


def rows(table: Mapping[str, Mapping[str, Any]]) -> str:
    """The table as text: a metric a line, a method a column."""
    methods = [name for name in next(iter(table.values())) if name != "better"]
    lines = [["metric", *methods, "better"]]
    for name, found in table.items():
        lines.append([name, *(format_interval(found[method]) for method in methods), found["better"]])
    plain = {f"{name} {method}": found[method] for name, found in table.items() for method in methods}
    return "\n".join([format_table(lines), *patients_warning(plain)])


def _measured(
    evaluator: SetEvaluator, images: Tensor, classifier: SliceClassifierScores | None, seed: int
) -> dict[str, Value]:
    return {**evaluator(images).values, **_certainty(images, classifier, evaluator.count, seed)}


def _certainty(
    images: Tensor,
    classifier: SliceClassifierScores | None,
    count: int,
    seed: int,
    patients: Sequence[str] | None = None,
) -> dict[str, Value]:
    if classifier is None:
        return {}
    resamples = Resamples.draw(patients, len(images), count, make_rng(seed, "inception score"))
    probabilities = class_probabilities(classifier, images)
    return {f"is_{classifier.name}": score_with_interval(probabilities, resamples)}


NOISED = "composites_noised"
"""Composites with noise as strong as the enhancer's change: a grain that no network had to learn."""


def evaluate_images(
    extraction_dir: str | os.PathLike[str],
    composites_dir: str | os.PathLike[str],
    enhanced_dir: str | os.PathLike[str],
    baselines: Mapping[str, str],
    window: Window,
    extractor: FeatureExtractor,
    classifier: SliceClassifierScores | None,
    segmenter: Segmenter | None,
    output_dir: str | os.PathLike[str],
    num_samples: int = 200,
    resamples: int = 200,
    seed: int = 0,
) -> dict[str, Any]:
    """Table III, the check of the masks and the panel.

    Real slices are the test patients' with nodules; where these have none (crops, and healthy slices from
    elsewhere), those without.

    Raises:
        UserError: a stage's result is missing, or too few images.
    """
    folder = Path(extraction_dir)
    tests = SliceBank.load(folder / "tests")
    refuse_shared_patients(
        tests.records, folder / "tests", [folder / n for n in ("nodules", "healthy_slices", "others")]
    )
    found = of_bank(tests, window)
    with_nodules = bool(found.has_nodule.any())
    test = _compared(found, with_nodules)
    sets, masks = chain_sets(composites_dir, enhanced_dir, window, num_samples, seed)
    size = (test.images.shape[2], test.images.shape[3])
    sets |= baseline_sets(baselines, len(masks), size, window, seed)
    training = of_bank(SliceBank.load(folder / "healthy_slices"), window)
    others = _compared(of_bank(SliceBank.load(folder / "others"), window), with_nodules)
    seen = others.beside(training)
    real = RealImages(test.images, test.patients, others.images, seen.images, seen.patients)
    evaluator = SetEvaluator(real, extractor, seed, resamples)
    table = compare(evaluator, sets, classifier, seed)
    survived = survival(sets[COMPOSITES], sets[ENHANCED], masks, segmenter)
    noised = with_equal_noise(sets[COMPOSITES], sets[ENHANCED], seed)
    owners = bases(enhanced_dir, num_samples, seed)
    changes = {ENHANCED: sets[ENHANCED], NOISED: noised}
    effect = effect_of(evaluator, sets[COMPOSITES], changes, owners, window, tests.records[0].spacing_mm)
    save_panel(Path(output_dir) / "panel.png", sets[COMPOSITES], sets[ENHANCED], masks, test.images)
    kind = "with" if with_nodules else "without"
    patients = len(set(test.patients))
    title = f"Table III, {len(test)} real test slices {kind} nodules of {patients} patients"
    print(f"\n{title}\n{rows(table)}\n{told(survived)}\n{told_effect(effect)}")
    facts = {
        "test_slices": len(test),
        "test_patients": patients,
        "of_slices_with_nodules": with_nodules,
        "generated": len(masks),
    }
    return {"table_3": table, **facts, "nodules": survived, "effect": effect}


def survival(
    before: Tensor, after: Tensor, masks: Tensor, segmenter: Segmenter | None
) -> dict[str, float | None]:
    """Whether the masks still tell the truth.

    ``contrast_kept``: of the nodules, 1 for all of it (see `common.metrics.faithfulness`); ``dice_before``
    and ``dice_after`` of the segmenter against the masks, None without one.
    """
    parts = contrast_parts(lesion_contrast(after, masks), lesion_contrast(before, masks)).sum(0)
    kept = faithfulness(parts) if float(parts[1]) else None
    found: dict[str, float | None] = {"contrast_kept": kept, "dice_before": None, "dice_after": None}
    if segmenter is not None:
        for name, images in (("dice_before", before), ("dice_after", after)):
            metric = NoduleDice(segmenter)
            for some, true in zip(images.split(16), masks.split(16), strict=True):
                metric.update((some, true))
            found[name] = metric.compute()
    return found


def effect_of(
    evaluator: SetEvaluator,
    composites: Tensor,
    changes: Mapping[str, Tensor],
    bases: Sequence[str],
    window: Window,
    spacing_mm: float,
) -> dict[str, Any]:
    """Whether a change brings composites nearer to real slices, and how much of the lung it reaches.

    Args:
        composites: (N, 1, H, W) in [-1, 1].
        changes: by name, the same composites changed: `ENHANCED` by the enhancer, `NOISED` by equal noise.
        bases: the slice that each composite was laid on.
        window: HU of [-1, 1].
        spacing_mm: of a pixel.
    Returns:
        ``kid_change`` by name, below 0 where the composites came nearer, and ``changed_share``, see
        `bundles.lung_two_stage.enhancement.effect.changed_share`.
    """
    drawn = Resamples.draw(bases, len(bases), evaluator.count, make_rng(evaluator.seed, "effect"))
    both, patients = evaluator.resamples.join(drawn), (evaluator.real.patients, bases)
    before = evaluator.extract(composites)
    moved = {
        name: kid_change(evaluator.features, before, evaluator.extract(images), patients, both).plain()
        for name, images in changes.items()
    }
    first, second = (
        to_hu(from_network(each[:, 0].numpy()), window) for each in (composites, changes[ENHANCED])
    )
    share = changed_share(first, second, lungs_of(first, spacing_mm))
    return {"kid_change": moved, "changed_share": share, "extractor": evaluator.extractor.name}


def told_effect(effect: Mapping[str, Any]) -> str:
    """One line about the enhancer."""
    cells = ", ".join(f"{name} {format_interval(found)}" for name, found in effect["kid_change"].items())
    share = format_number(effect["changed_share"])
    return f"change of KID ({effect['extractor']}): {cells}; {share} of the lung changed"


def told(survived: Mapping[str, float | None]) -> str:
    """One line about the masks."""
    cells = {name: format_number(value) for name, value in survived.items()}
    return (
        f"nodules after the enhancement: {cells['contrast_kept']} of their contrast (1 = all), Dice of the "
        f"segmenter {cells['dice_before']} before and {cells['dice_after']} after"
    )


def evaluate_downstream_tasks(
    read: Callable[[], Sources],
    judge: Callable[[Sources], Utility],
    tasks: Sequence[str],
    categories: Sequence[str],
    classifier_width: int,
    make_segmenter: Callable[[], nn.Module],
) -> dict[str, Any]:
    """What a diagnosis gains from synthetic slices, task by task; prints a sentence for each.

    Args:
        read: reads the sets; not called where there is no task.
        judge: makes the comparison of them.
        tasks: of ``nodule``, ``category`` (left out, said in one line, without two categories) and
            ``segmentation``.
    """
    results: dict[str, Any] = {}
    if not tasks:
        return results
    utility = judge(read())
    for name in tasks:
        if name == CATEGORY and len(_test_categories(utility.sources.test)) < 2:
            logger.info("category: the test slices have fewer than two categories, it is left out")
            continue
        if name in (NODULE, CATEGORY):
            count = len(class_names(name, categories))
            made = classification(name, partial(SliceClassifier, count, classifier_width), count)
        else:
            made = segmentation(make_segmenter)
        results[name] = utility.compare(made)
        print(results[name]["sentence"])
    return results


def write_metrics(output_dir: str | os.PathLike[str], *parts: Mapping[str, Any]) -> None:
    """``metrics.json``, atomically."""
    whole: dict[str, Any] = {}
    for part in parts:
        whole |= part
    write_json(Path(output_dir) / "metrics.json", whole)
    print(f"\nwritten to {output_dir}")


def _compared(slices: Slices, with_nodules: bool) -> Slices:
    return slices.at(np.flatnonzero(slices.has_nodule == with_nodules))


def _test_categories(test: Slices) -> set[int]:
    return set(test.category.tolist()) - {-1}
