"""Stage 6: Table III, the effect of the enhancer, and what a diagnosis gains from synthetic slices."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from bundles.lung_two_stage.banks import SliceBank
from bundles.lung_two_stage.composition.patches import make_noise
from bundles.lung_two_stage.composition.shards import Composites
from bundles.lung_two_stage.downstream.data import (
    CATEGORY,
    NODULE,
    Slices,
    Sources,
    bank_slices,
    class_names,
)
from bundles.lung_two_stage.downstream.utility import SliceClassifier, Utility, classification, segmentation
from bundles.lung_two_stage.enhancement.data import check_no_shared_patients
from bundles.lung_two_stage.enhancement.nodule_preservation import NoduleDice, Segmenter
from bundles.lung_two_stage.generation.select import GeneratorModel, find_lungs
from bundles.lung_two_stage.segmentation.inference import network_input
from common.data.intensity import Window, from_network, to_hu
from common.data.slice_geometry import resize_image
from common.files import atomic_write, write_json
from common.inference.checkpoint import load_weights, model_info, model_window, network_for
from common.metrics.bootstrap import Resamples, Value
from common.metrics.diversity import class_probabilities, score_with_interval
from common.metrics.evaluate import (
    RealImages,
    SetEvaluator,
    better,
    format_interval,
    format_number,
    format_table,
    patients_warning,
)
from common.metrics.faithfulness import contrast_parts, faithfulness, lesion_contrast
from common.metrics.features import FeatureExtractor
from common.metrics.kid import kid_change
from common.provenance import SHEET, png_text
from common.rng import make_rng
from common.visualization import sheet, tiled, unit_range

ENHANCED, COMPOSITES = "enhanced", "composites"
NOISED = "composites_noised"
"""Composites with noise as strong as the enhancer's change, which needs no training."""
REAL, BLURRED = "real_real", "blurred_real"
SHOWN = (
    *("fid_", "kid_", "excess_kid_", "precision", "recall", "density", "coverage", "pair_"),
    *("copies_by_features", "is_"),
)
HOW_TO_TRAIN = "train_healthy_slices.yaml with the baseline's overlay, on slices with nodules"
EDGE = 0.35
"""Opacity of the nodules' masks in the panel."""
BLUR = 1.5
"""Standard deviation in pixels of the Gaussian before a change is counted, so that grain does not count."""
LEAST_HU = 20.0

logger = logging.getLogger(__name__)


def chain_sets(
    composites_dir: str | os.PathLike[str],
    enhanced_dir: str | os.PathLike[str],
    window: Window,
    count: int,
    seed: int = 0,
) -> tuple[dict[str, Tensor], Tensor, list[str]]:
    """Reads the same composites before and after the enhancement.

    Returns:
        Images (N, 1, H, W) in [-1, 1] by name, their masks (N, 1, H, W) in {0, 1}, and the patients of the
        healthy slices below (the slices' names where these were generated).
    Raises:
        UserError: shards are not finished.
    """
    folders = {COMPOSITES: Composites(composites_dir), ENHANCED: Composites(enhanced_dir)}
    total = min(len(folder) for folder in folders.values())
    numbers = sorted(make_rng(seed, "evaluation", "composites").permutation(total)[:count].tolist())
    chosen = {name: [folder[number] for number in numbers] for name, folder in folders.items()}
    images = {
        name: network_input(np.stack([composite.image for composite in composites]), window)
        for name, composites in chosen.items()
    }
    masks = np.stack([composite.mask > 0 for composite in chosen[ENHANCED]])
    bases = [composite.record["normal"] for composite in chosen[ENHANCED]]
    patients = [base.get("patient") or base["name"] for base in bases]
    return images, torch.from_numpy(masks.astype(np.float32))[:, None], patients


def baseline_sets(
    paths: Mapping[str, str | os.PathLike[str]],
    count: int,
    image_size: tuple[int, int],
    window: Window,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Draws slices (``count``, 1, H, W) in [-1, 1] of each trained baseline; a log line names the others.

    Args:
        paths: of the models, by name.
        image_size: the slices are resized to it.
        window: the slices are brought into it.
    Raises:
        UserError: a model cannot be read, or is no network of this project.
    """
    sets = {}
    for name, path in paths.items():
        if not Path(path).is_file():
            logger.info(f"{path}: {name} is not trained, it is left out")
            continue
        model = GeneratorModel.load(path, HOW_TO_TRAIN)
        images = torch.from_numpy(np.ascontiguousarray(model.draw(count, seed).images[:, :1]))
        sets[name] = in_window(_resized(images, image_size), model_window(model.info), window)
    return sets


def in_window(images: Tensor, own: Window, window: Window) -> Tensor:
    """Maps images in [-1, 1] of one HU window to another window, clipped."""
    hu = (images + 1) / 2 * own.width + own.lower
    return ((hu - window.lower) / window.width * 2 - 1).clamp(-1, 1)


def _resized(images: Tensor, image_size: tuple[int, int]) -> Tensor:
    if tuple(images.shape[2:]) == image_size:
        return images
    resized = [resize_image(image[0].numpy(), *image_size) for image in (images + 1) / 2]
    return torch.from_numpy(np.stack(resized))[:, None].float() * 2 - 1


def save_panel(
    path: str | os.PathLike[str],
    composites: Tensor,
    enhanced: Tensor,
    masks: Tensor,
    real: Tensor,
    count: int = 6,
) -> None:
    """Saves a row for each of the first composites: composite, enhanced, change, mask, a real slice.

    The change is scaled to its maximum over the panel, which the title states in per cent of the window.

    Args:
        path: the PNG file, written atomically.
        composites, enhanced, real: (N, 1, H, W) in [-1, 1]; real slices belong to no row.
        masks: (N, 1, H, W), nodules above 0.
        count: rows at most.
    """
    rows = min(count, len(composites))
    before, after = unit_range(composites[:rows]), unit_range(enhanced[:rows])
    change = (after - before).abs()
    largest = max(float(change.max()), 1e-6)
    marked = (before * (1 - EDGE) + EDGE * (masks[:rows] > 0).float()).clamp(0, 1)
    columns = [before, after, change / largest, marked, unit_range(real[torch.arange(rows) % len(real)])]
    titles = ("composite", "enhanced", f"change, white = {largest:.0%}", "mask", "real (another patient)")
    with atomic_write(path) as temporary:
        picture = sheet(tiled(columns), titles, [f"composite {number}" for number in range(rows)])
        picture.save(temporary, format="PNG", pnginfo=png_text(SHEET))


class SliceClassifierScores(nn.Module):
    """A trained diagnosis as the classifier of an inception score, for slices of its own window.

    Args:
        network: maps (B, 1, H, W) in [-1, 1] to logits (B, K).
        name: part of the score's name.
    """

    def __init__(self, network: nn.Module, name: str = "diagnosis") -> None:
        super().__init__()
        self.network, self.name = network.eval(), name

    def forward(self, images: Tensor) -> Tensor:
        """Class probabilities (B, K)."""
        return torch.softmax(self.network(images), dim=1)


def load_classifier(path: str | os.PathLike[str]) -> SliceClassifierScores | None:
    """Loads the diagnosis, named by its number of classes; None, with a log line, where there is none.

    Raises:
        UserError: the file cannot be read, or is no network of this project.

    Example:
        >>> load_classifier("no such model.pt") is None
        True
    """
    if not Path(path).is_file():
        logger.info(f"{path}: no diagnosis yet, the inception score is left out")
        return None
    network = load_weights(network_for(path, nn.Identity()), path, "run training of train_diagnosis.yaml")
    classes = len(model_info(path).get("classes", []))
    return SliceClassifierScores(network, f"diagnosis_of_{classes}")


def compare_sets(
    evaluator: SetEvaluator,
    sets: Mapping[str, Tensor],
    classifier: SliceClassifierScores | None,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """Evaluates sets of slices (N, 1, H, W), real slices in their place, and the blurred test slices.

    Sets are cut to equal numbers, since most metrics depend on the number.

    Returns:
        Metric -> set -> value, as plain data.
    """

    def certainty(images: Tensor, patients: Sequence[str] | None = None) -> dict[str, Value]:
        if classifier is None:
            return {}
        rng = make_rng(seed, "inception score")
        resamples = Resamples.draw(patients, len(images), evaluator.count, rng)
        probabilities = class_probabilities(classifier, images)
        return {f"is_{classifier.name}": score_with_interval(probabilities, resamples)}

    count = min(len(images) for images in sets.values())
    values = {
        name: {**evaluator(images[:count]).values, **certainty(images[:count])}
        for name, images in sets.items()
    }
    baselines = evaluator.baselines(count)
    for name, images in ((REAL, evaluator.real.test), (BLURRED, evaluator.blurred[0])):
        values[name] = {**baselines[name].values, **certainty(images, evaluator.real.patients)}
    names = [name for name in next(iter(values.values())) if name.startswith(SHOWN)]
    return {
        name: {
            "better": "higher" if name.startswith("is_") else better(name),
            **{method: results[name].plain() for method, results in values.items()},
        }
        for name in names
    }


def format_sets(table: Mapping[str, Mapping[str, Any]]) -> str:
    """Formats the result of `compare_sets`: a metric a line, a set a column."""
    methods = [name for name in next(iter(table.values())) if name != "better"]
    lines = [["metric", *methods, "better"]]
    for name, row in table.items():
        lines.append([name, *(format_interval(row[method]) for method in methods), row["better"]])
    plain = {f"{name} {method}": row[method] for name, row in table.items() for method in methods}
    return "\n".join([format_table(lines), *patients_warning(plain)])


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
    """Table III, the preservation of nodules, the effect of the enhancer and the panel.

    The real slices are those of test patients with nodules; without nodules where there are none (crops, and
    healthy slices from another folder).

    Raises:
        UserError: a stage's result is missing, or there are too few images.

    Example:
        ``python -m monai.bundle run evaluating --config_file bundles/lung_two_stage/configs/evaluate.yaml``
        calls it with the folders ``extraction``, ``composites`` and ``enhanced`` in ``work``, prints the
        tables, and leaves ``panel.png`` and, with what it returns, ``metrics.json`` in ``work/evaluation``.
    """
    real, spacing_mm, with_nodules = _real_images(Path(extraction_dir), window)
    evaluator = SetEvaluator(real, extractor, seed, resamples)
    sets, masks, patients = chain_sets(composites_dir, enhanced_dir, window, num_samples, seed)
    composites, enhanced = sets[COMPOSITES], sets[ENHANCED]
    size = (real.test.shape[2], real.test.shape[3])
    drawn = baseline_sets(baselines, len(masks), size, window, seed)
    table = compare_sets(evaluator, {**sets, **drawn}, classifier, seed)
    preservation = nodule_preservation(composites, enhanced, masks, segmenter)
    effect = enhancer_effect(evaluator, composites, enhanced, patients, window, spacing_mm)
    save_panel(Path(output_dir) / "panel.png", composites, enhanced, masks, real.test)
    facts = {
        "test_slices": len(real.test),
        "test_patients": len(set(real.patients)),
        "of_slices_with_nodules": with_nodules,
        "generated": len(masks),
    }
    kind = "with" if with_nodules else "without"
    print(
        f"\nTable III, {facts['test_slices']} real test slices {kind} nodules of {facts['test_patients']} "
        f"patients\n{format_sets(table)}\n{describe_preservation(preservation)}\n{describe_effect(effect)}"
    )
    return {"table_3": table, **facts, "nodules": preservation, "effect": effect}


def _real_images(extraction: Path, window: Window) -> tuple[RealImages, float, bool]:
    """The real images to compare with, the pixel spacing in mm, and whether they show nodules."""
    tests = SliceBank.load(extraction / "tests")
    used = [extraction / name for name in ("nodules", "healthy_slices", "others")]
    check_no_shared_patients(tests.records, extraction / "tests", used)
    slices = bank_slices(tests, window)
    with_nodules = bool(slices.has_nodule.any())

    def compared(slices: Slices) -> Slices:
        return slices.subset(np.flatnonzero(slices.has_nodule == with_nodules))

    test = compared(slices)
    others = compared(bank_slices(SliceBank.load(extraction / "others"), window))
    training = others.concatenate(bank_slices(SliceBank.load(extraction / "healthy_slices"), window))
    real = RealImages(test.images, test.patients, others.images, training.images, training.patients)
    return real, tests.records[0].spacing_mm, with_nodules


def nodule_preservation(
    before: Tensor, after: Tensor, masks: Tensor, segmenter: Segmenter | None
) -> dict[str, float | None]:
    """Whether nodules still match their masks after the enhancement.

    Args:
        before, after: (N, 1, H, W) in [-1, 1].
        masks: (N, 1, H, W), nodules above 0.
        segmenter: for Dice; may be None.
    Returns:
        ``contrast_kept``, the share of the nodules' contrast (see `common.metrics.faithfulness`);
        ``dice_before`` and ``dice_after`` of the segmenter against the masks, None without one.
    """
    parts = contrast_parts(lesion_contrast(after, masks), lesion_contrast(before, masks)).sum(0)
    kept = faithfulness(parts) if float(parts[1]) else None
    result: dict[str, float | None] = {"contrast_kept": kept, "dice_before": None, "dice_after": None}
    if segmenter is not None:
        for name, images in (("dice_before", before), ("dice_after", after)):
            metric = NoduleDice(segmenter)
            for batch in zip(images.split(16), masks.split(16), strict=True):
                metric.update(batch)
            result[name] = metric.compute()
    return result


def enhancer_effect(
    evaluator: SetEvaluator,
    composites: Tensor,
    enhanced: Tensor,
    patients: Sequence[str],
    window: Window,
    spacing_mm: float,
) -> dict[str, Any]:
    """Whether the enhancer brings composites nearer to real slices than equal noise, and how much it changes.

    Args:
        composites, enhanced: (N, 1, H, W) in [-1, 1].
        patients: of the composites' healthy slices.
        window: HU of [-1, 1].
        spacing_mm: of a pixel.
    Returns:
        ``kid_change`` by `ENHANCED` and `NOISED`, below 0 where composites came nearer; ``changed_share``.
    """
    resamples = Resamples.draw(patients, len(patients), evaluator.count, make_rng(evaluator.seed, "effect"))
    both, owners = evaluator.resamples.join(resamples), (evaluator.real.patients, patients)
    before = evaluator.extract(composites)
    sets = {ENHANCED: enhanced, NOISED: with_equal_noise(composites, enhanced, evaluator.seed)}
    changes = {
        name: kid_change(evaluator.features, before, evaluator.extract(images), owners, both).plain()
        for name, images in sets.items()
    }
    first, second = (to_hu(from_network(each[:, 0].numpy()), window) for each in (composites, enhanced))
    share = changed_share(first, second, find_lungs(first, spacing_mm, nominal_hu=False) > 0)
    return {"kid_change": changes, "changed_share": share, "extractor": evaluator.extractor.name}


def changed_share(
    before: NDArray[np.integer],
    after: NDArray[np.integer],
    lungs: NDArray[np.bool_],
    least: float = LEAST_HU,
) -> float:
    """Share of the lungs' pixels (N, H, W) whose blurred change exceeds ``least`` HU; NaN without lungs."""
    change = after.astype(np.float32) - before.astype(np.float32)
    smooth = np.stack([gaussian_filter(each, BLUR, mode="nearest") for each in change])
    return float((np.abs(smooth)[lungs] > least).mean()) if lungs.any() else float("nan")


def with_equal_noise(before: Tensor, after: Tensor, seed: int = 0) -> Tensor:
    """Adds noise to images (N, 1, H, W) in [-1, 1], as strong as the change from ``before`` to ``after``.

    The root mean square is equal, image by image; the noise has the grain of CT, see
    `bundles.lung_two_stage.composition.patches.make_noise`. A network that does no better than this has
    learned to add grain.
    """
    strength = (after - before).square().mean((1, 2, 3), keepdim=True).sqrt()
    height, width = before.shape[-2:]
    fields = [make_noise(make_rng(seed, "equal noise", n), max(height, width)) for n in range(len(before))]
    noise = torch.from_numpy(np.stack(fields))[:, None, :height, :width]
    return (before + strength * noise).clamp(-1, 1)


def describe_effect(effect: Mapping[str, Any]) -> str:
    """A line about the enhancer's effect."""
    cells = ", ".join(f"{name} {format_interval(change)}" for name, change in effect["kid_change"].items())
    share = format_number(effect["changed_share"])
    return f"change of KID ({effect['extractor']}): {cells}; {share} of the lung changed"


def describe_preservation(preservation: Mapping[str, float | None]) -> str:
    """A line about the nodules."""
    cells = {name: format_number(value) for name, value in preservation.items()}
    return (
        f"nodules after the enhancement: {cells['contrast_kept']} of their contrast (1 = all), Dice of the "
        f"segmenter {cells['dice_before']} before and {cells['dice_after']} after"
    )


def evaluate_downstream_tasks(
    read_sources: Callable[[], Sources],
    make_utility: Callable[[Sources], Utility],
    tasks: Sequence[str],
    categories: Sequence[str],
    classifier_width: int,
    make_segmenter: Callable[[], nn.Module],
) -> dict[str, Any]:
    """Measures, task by task, what a diagnosis gains from synthetic slices, and prints a sentence for each.

    Args:
        read_sources: reads the sets; not called where there is no task.
        make_utility: makes the comparison.
        tasks: of ``nodule``, ``category`` (left out, with a log line, without two categories) and
            ``segmentation``.
        categories: names of the nodules' categories.
        classifier_width: of `SliceClassifier`.
        make_segmenter: makes an untrained segmenter.

    Example:
        >>> evaluate_downstream_tasks(dict, dict, [], [], 8, dict)  # nothing is read
        {}
    """
    results: dict[str, Any] = {}
    if not tasks:
        return results
    utility = make_utility(read_sources())
    for name in tasks:
        if name == CATEGORY and len(set(utility.sources.test.category.tolist()) - {-1}) < 2:
            logger.info("category: the test slices have fewer than two categories, it is left out")
            continue
        if name in (NODULE, CATEGORY):
            count = len(class_names(name, categories))
            task = classification(name, partial(SliceClassifier, count, classifier_width), count)
        else:
            task = segmentation(make_segmenter)
        results[name] = utility.compare(task)
        print(results[name]["sentence"])
    return results


def write_metrics(output_dir: str | os.PathLike[str], *parts: Mapping[str, Any]) -> None:
    """Writes the parts as one ``metrics.json``.

    Example:
        >>> from tempfile import mkdtemp
        >>> write_metrics(mkdtemp(), {"seed": 0}, {"table_3": {}})  # doctest: +ELLIPSIS
        <BLANKLINE>
        written to ...
    """
    write_json(Path(output_dir) / "metrics.json", {k: v for part in parts for k, v in part.items()})
    print(f"\nwritten to {output_dir}")
