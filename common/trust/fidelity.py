"""Fidelity and diversity: how like real images the synthetic ones are as a set, beside what is possible."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from common.metrics.bootstrap import Value
from common.metrics.features import FeatureExtractor
from common.metrics.inception_score import Classifier
from common.metrics.set_evaluation import better
from common.trust.fidelity_words import statement, warnings
from common.trust.findings import HIGHER, Figure, Line, Plot, Section
from common.trust.measuring import REAL_REAL, Measured, SetMeasures
from common.trust.sets import ImageSet, Sets

RESAMPLES = 500
NOTES = {
    "fid": "Frechet distance of features; it grows as images get fewer, so compare values of equal n.",
    "fid_infinity": "FID where a line over 1 / n meets infinitely many patients (Chong & Forsyth 2020).",
    "kid": "Kernel distance of features over pairs of different patients; unbiased, may fall below 0.",
    "excess_kid": "KID in steps: 0 as real images of others, 1 as held-out images blurred by a pixel.",
    "is": "Knows no real images: read it beside theirs.",
    "precision": "Share of synthetic images that lie among the real ones.",
    "recall": "Share of real images that the synthetic ones reach.",
    "density": "As precision, counted so that single odd real images do not raise it; may exceed 1.",
    "coverage": "Share of real images with a synthetic one near by; odd synthetic images do not raise it.",
    "pair_ssim": "Mean SSIM of pairs of synthetic images: higher than real pairs' is less diverse.",
    "pair_ms_ssim": "Mean MS-SSIM of pairs of synthetic images: higher than real pairs' is less diverse.",
    "pair_distance": "Mean feature distance of synthetic pairs: lower than real pairs' is less diverse.",
}


def fidelity(
    sets: Sets,
    extractor: FeatureExtractor,
    seed: int = 0,
    resamples: int = RESAMPLES,
    classifier: Classifier | None = None,
    device: torch.device | str = "cpu",
) -> Section:
    """The section. All sets are compared with the held-out images, which no generator has seen.

    ``real_real`` are the real images in the synthetic ones' place, as many of them as there are synthetic
    ones; ``mean_image`` is their mean, as often; ``blurred_real`` are the held-out images, blurred.

    Args:
        extractor: on ``device`` already; its name becomes part of the names of all that rests on features.
        resamples: of the bootstrap-t; intervals are over patients.
        classifier: for the inception score, on ``device`` already; without one there is none.
    """
    comparison = SetMeasures(sets, extractor, seed, resamples, classifier, device)
    found = comparison(sets.synthetic.images, None, sets.synthetic.volumes)
    beside = comparison.baselines(len(sets.synthetic))
    figures = [
        _figure(
            name,
            value,
            {which: each.values[name] for which, each in beside.items() if name in each.values},
            extractor.name,
            "" if classifier is None else classifier.name,
            seed,
        )
        for name, value in found.values.items()
    ]
    return Section(
        "fidelity",
        "Fidelity and diversity",
        statement(figures, extractor.name),
        figures,
        _plots(found, beside[REAL_REAL]),
        warnings=warnings(sets, figures, extractor.dimension),
        facts={
            "extractor": extractor.name,
            "features": extractor.dimension,
            "neighbours": comparison.k,
            "images": {
                "real": len(sets.real),
                "heldout": len(sets.heldout),
                "synthetic": len(sets.synthetic),
            },
            "patients": {name: len(set(part.patients)) for name, part in _real_sets(sets).items()},
        },
    )


def _real_sets(sets: Sets) -> dict[str, ImageSet]:
    return {"real": sets.real, "heldout": sets.heldout}


def _figure(
    name: str, value: Value, baselines: Mapping[str, Value], extractor: str, classifier: str, seed: int
) -> Figure:
    """With the network's name at the end of the figure's where one is behind it."""
    network = "" if name.startswith("pair_") and name.endswith("ssim") else extractor
    network = classifier if name.startswith("is_") else network
    kind = name.removesuffix(f"_{network}")
    judged = HIGHER if kind == "is" else better(kind)
    full = f"{kind}_{network}" if network else kind
    return Figure(full, value, judged, baselines, network, seed, NOTES.get(kind, ""))


def _plots(found: Measured, real: Measured) -> list[Plot]:
    """The lines of the extrapolation."""
    lines = [
        Line(
            name,
            [0.0, *(1 / number for number in each.line.numbers)],
            [each.line.value.mean, *each.line.means],
        )
        for name, each in (("synthetic", found), ("real against real", real))
        if each.line is not None
    ]
    caption = (
        "Both sets cut by patient into 1 to 4 parts, the parts' mean FID; at 0 where the fitted line meets "
        "infinitely many patients. What falls on the way there is bias of few patients."
    )
    title = "FID and the number of images"
    return [Plot(title, "1 / number of images", "FID", lines, caption)] if lines else []
