"""What the figures of fidelity and diversity say, in words, whichever way they point."""

from __future__ import annotations

from collections.abc import Sequence

from common.metrics.bootstrap import few_patients
from common.trust.findings import Figure
from common.trust.measuring import MEAN_IMAGE, REAL_REAL
from common.trust.sets import Sets

BIASED = 0.1
"""Share of FID that extrapolation takes away from which on it is worth a warning."""


def statement(figures: Sequence[Figure], extractor: str) -> str:
    """Three sentences: the distance, whether it can be told from none, and what is lacking."""
    by_kind = {figure.name.removesuffix(f"_{extractor}"): figure for figure in figures}
    precision, recall = by_kind["precision"], by_kind["recall"]
    return f"{_distance(by_kind['fid'], extractor)} {_told_apart(by_kind['kid'])} {_lack(precision, recall)}"


def warnings(sets: Sets, figures: Sequence[Figure], features: int) -> list[str]:
    """What a reader must know before trusting the figures: few images, few patients, unequal numbers."""
    fid = next(figure for figure in figures if figure.name.startswith("fid_"))
    infinite = next((figure for figure in figures if figure.name.startswith("fid_infinity")), None)
    synthetic, heldout = len(sets.synthetic), len(sets.heldout)
    said = []
    if min(synthetic, heldout) < features:
        said.append(
            f"{synthetic} synthetic and {heldout} held-out images for {features} features: FID is biased "
            f"upward (real against real: {fid.baselines[REAL_REAL].said()}) and its extrapolation a guess; "
            "trust KID, which has no such bias"
        )
    if infinite is not None and infinite.value.mean < (1 - BIASED) * fid.value.mean:
        said.append(
            f"FID is {fid.value.said()} for {synthetic} images but {infinite.value.said()} extrapolated to "
            "infinitely many patients: compare it only with values of as many images"
        )
    taken = fid.baselines[REAL_REAL].n
    if taken < synthetic:
        said.append(
            f"real against real rests on {taken} images, the synthetic value on {synthetic}: FID, recall and "
            "coverage of fewer images are worse, so the comparison favours the synthetic ones"
        )
    few = few_patients(len(set(sets.heldout.patients)))
    return said if few is None else [*said, f"held-out images of {few}"]


def _distance(fid: Figure, extractor: str) -> str:
    real, mean = fid.baselines[REAL_REAL].mean, fid.baselines[MEAN_IMAGE].mean
    values = f"{fid.value.mean:.3g}, {real:.3g} for real against real and {mean:.3g} for the mean image"
    text = f"FID ({extractor}) is {values}"
    if not mean > real:
        return f"{text}: this extractor does not tell real images from their mean, so FID says nothing here."
    share = (fid.value.mean - real) / (mean - real)
    if share <= 0:
        return f"{text}: the synthetic images are as near to held-out ones as real images are."
    if share >= 1:
        return f"{text}: the synthetic images are no nearer to real ones than the mean image."
    return f"{text}: {100 * share:.0f} % of the way from real images to the mean image."


def _told_apart(kid: Figure) -> str:
    real = kid.baselines[REAL_REAL]
    figures = f"{kid.value.said()} against {real.said()}"
    if not (kid.value.bounded and real.bounded):
        return f"Whether KID tells them from real images cannot be said with so few patients ({figures})."
    if kid.value.low > real.high:
        return f"KID tells them from real images ({figures})."
    return f"KID does not tell {kid.value.n} of them from real images ({figures})."


def _lack(precision: Figure, recall: Figure) -> str:
    words = [
        f"{name} {figure.value.said()}, of real images {figure.baselines[REAL_REAL].said()}"
        for name, figure in (("precision", precision), ("recall", recall))
    ]
    known = [each for figure in (precision, recall) for each in (figure.value, figure.baselines[REAL_REAL])]
    if not all(value.bounded for value in known):
        question = "whether they look like real images and are as diverse"
        return f"Too few patients to say {question} ({'; '.join(words)})."
    true, diverse = _as_real(precision), _as_real(recall)
    if true and diverse:
        return (
            f"They look like real images and are as diverse, as far as so many can tell ({'; '.join(words)})."
        )
    if true:
        return f"They look like real images but miss part of their variety ({words[1]}), as in mode collapse."
    if diverse:
        return f"They reach the variety of real images, but many do not look like them ({words[0]})."
    return f"They do not look like real images, nor reach their variety ({'; '.join(words)})."


def _as_real(figure: Figure) -> bool:
    return figure.value.high >= figure.baselines[REAL_REAL].low
