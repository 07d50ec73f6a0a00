"""What the figures of privacy and the release gate say, in words, whichever way they point."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from common.metrics.bootstrap import few_patients
from common.trust.findings import Figure
from common.trust.gate import Gate
from common.trust.membership import CHANCE
from common.trust.sets import Sets
from common.trust.shift import Shift

NEARLY_ONE = 0.99


def statement(gate: Gate, figures: Sequence[Figure]) -> str:
    """The gate's answer with its reason, then the attack's success."""
    attacks = [figure for figure in figures if figure.name.startswith("membership_auc")]
    strongest = max(attacks, key=lambda each: (each.value.bounded, each.value.low, each.value.mean))
    space = strongest.name.removeprefix("membership_auc_")
    value = strongest.value
    figure = f"AUC {value.said('.2f')} by {space}"
    if not value.bounded:
        told = f"With so few patients it cannot be said whether training patients can be told ({figure})."
    elif value.low > CHANCE:
        told = f"One who has the synthetic images can tell training patients from others ({figure})."
    else:
        told = f"The synthetic images do not tell training patients from others ({figure}, 0.50 is chance)."
    return f"The release gate is {gate.verdict}: {gate.reason}. {told}"


def warnings(sets: Sets, usual: Tensor, gate: Gate, shift: Shift) -> list[str]:
    """What a reader must know before trusting the figures.

    Args:
        usual: similarities of the held-out images to their nearest training image.
        shift: between training and held-out images.
    """
    said = []
    if shift.found:
        said.append(
            f"held-out images differ from training images {shift.ratio:.2g} times as much as parts "
            f"split at random by patient do (p = {shift.p_value:.2g}): are they from another hospital or "
            "scanner? Then they say little of how near images like the training ones may come to them"
        )
    if float(usual.max()) > NEARLY_ONE:
        place = int(usual.argmax())
        said.append(
            f"{sets.heldout.names[place]} is held out but nearly a training image (similarity "
            f"{float(usual.max()):.4f}): is it of another patient? Copies cannot be told while it is there"
        )
    if sets.synthetic.labels is not None:
        said.append(
            "images made from training patients' conditions resemble those patients for that alone, and "
            "those made from held-out conditions the held-out ones: read the attack's AUC with that in mind"
        )
    for name, images in (("training", sets.real), ("held-out", sets.heldout)):
        few = few_patients(len(set(images.patients)))
        if few is not None:
            said.append(f"{name} images of {few}")
    return said
