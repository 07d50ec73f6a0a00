"""Stage 6: Table III, whether nodules survived, and the purpose: what a diagnosis gains."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from bundles.lung_two_stage.banks import SliceBank
from bundles.lung_two_stage.diagnosis.data import class_names
from bundles.lung_two_stage.diagnosis.network import SliceClassifier
from bundles.lung_two_stage.diagnosis.slices import CATEGORY, NODULE, Slices, of_bank
from bundles.lung_two_stage.diagnosis.sources import Sources
from bundles.lung_two_stage.diagnosis.tasks import classification, segmentation
from bundles.lung_two_stage.diagnosis.utility import Utility
from bundles.lung_two_stage.enhancement.apart import refuse_shared_patients
from bundles.lung_two_stage.enhancement.effect import changed_share, lungs_of, with_equal_noise
from bundles.lung_two_stage.enhancement.survival import NoduleDice, Segmenter
from bundles.lung_two_stage.evaluation.generated import COMPOSITES, ENHANCED, bases, chain_sets, rival_sets
from bundles.lung_two_stage.evaluation.panel import save_panel
from bundles.lung_two_stage.evaluation.table import SliceClassifierScores, compare, rows
from common.data.intensity import Window, from_network, to_hu
from common.files import write_json
from common.metrics.bootstrap import Resamples
from common.metrics.faithfulness import contrast_parts, faithfulness, lesion_contrast
from common.metrics.features import FeatureExtractor
from common.metrics.kid import kid_change
from common.metrics.report import number, with_interval
from common.metrics.set_evaluation import RealImages, SetEvaluator
from common.random import generator

NOISED = "composites_noised"
"""Composites with noise as strong as the enhancer's change: a grain that no network had to learn."""

logger = logging.getLogger(__name__)


def evaluate_images(
    extraction_dir: str | os.PathLike[str],
    composites_dir: str | os.PathLike[str],
    enhanced_dir: str | os.PathLike[str],
    rivals: Mapping[str, str],
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

    Real slices are the test patients' with nodules; where these have none (crops, and normal slices from
    elsewhere), those without.

    Raises:
        UserError: a stage's result is missing, or too few images.
    """
    folder = Path(extraction_dir)
    tests = SliceBank.load(folder / "tests")
    refuse_shared_patients(
        tests.records, folder / "tests", [folder / n for n in ("nodules", "normals", "others")]
    )
    found = of_bank(tests, window)
    with_nodules = bool(found.has_nodule.any())
    test = _compared(found, with_nodules)
    sets, masks = chain_sets(composites_dir, enhanced_dir, window, num_samples, seed)
    size = (test.images.shape[2], test.images.shape[3])
    sets |= rival_sets(rivals, len(masks), size, window, seed)
    training = of_bank(SliceBank.load(folder / "normals"), window)
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
    drawn = Resamples.over(bases, len(bases), evaluator.count, generator(evaluator.seed, "effect"))
    both, patients = evaluator.resamples.beside(drawn), (evaluator.real.patients, bases)
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
    cells = ", ".join(f"{name} {with_interval(found)}" for name, found in effect["kid_change"].items())
    share = number(effect["changed_share"])
    return f"change of KID ({effect['extractor']}): {cells}; {share} of the lung changed"


def told(survived: Mapping[str, float | None]) -> str:
    """One line about the masks."""
    cells = {name: number(value) for name, value in survived.items()}
    return (
        f"nodules after the enhancement: {cells['contrast_kept']} of their contrast (1 = all), Dice of the "
        f"segmenter {cells['dice_before']} before and {cells['dice_after']} after"
    )


def evaluate_purpose(
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
