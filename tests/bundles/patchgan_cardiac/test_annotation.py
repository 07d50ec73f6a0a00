from __future__ import annotations

import math

import pytest
import torch

from bundles.patchgan_cardiac.annotation import (
    SURE,
    OnImage,
    PairDiscriminator,
    WithPairs,
    annotation_loss,
    annotation_of,
    annotation_part,
    condition_part,
    image_part,
    label_to_pair,
    real_pair,
)
from bundles.patchgan_cardiac.networks import HeartGenerator
from common.losses.reconstruction import ConditionWeighted
from common.training.precision import Precision

CLASSES, SIDE = 3, 32


def batch() -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    return {
        "image": torch.rand(2, 1, SIDE, SIDE, generator=random) * 2 - 1,
        "label": torch.randint(0, CLASSES + 1, (2, 1, SIDE, SIDE), generator=random).float(),
        "annotation": torch.randint(0, CLASSES + 1, (2, 1, SIDE, SIDE), generator=random).float(),
    }


def test_a_real_pair_is_the_image_and_the_logits_of_its_map() -> None:
    given = batch()
    pair = real_pair(given["image"], given["annotation"], CLASSES)
    assert pair.shape == (2, 2 + CLASSES, SIDE, SIDE)
    assert torch.equal(pair[:, :1], given["image"]) and torch.equal(annotation_of(pair), given["annotation"])
    sure = pair[:, 1:].softmax(1).amax(1)
    assert torch.allclose(sure, torch.tensor(math.exp(SURE) / (math.exp(SURE) + CLASSES)))


def test_the_trainers_batch_has_the_pair_beside_the_rest() -> None:
    given = batch()
    prepared = WithPairs(CLASSES)(given, Precision("cpu", amp=False))
    assert set(prepared) == {"image", "label", "annotation", "pair"}
    assert torch.equal(annotation_of(prepared["pair"]), given["annotation"])


def test_the_annotations_loss_is_that_of_the_true_class() -> None:
    """A sure map costs little, a map that knows nothing log(K + 1), a wrong one SURE more than a sure one."""
    given = batch()
    pair = real_pair(given["image"], given["annotation"], CLASSES)
    flat = torch.cat([given["image"], torch.zeros(2, CLASSES + 1, SIDE, SIDE)], dim=1)
    wrong = real_pair(given["image"], (given["annotation"] + 1) % (CLASSES + 1), CLASSES)
    assert annotation_loss(flat, pair).item() == pytest.approx(math.log(CLASSES + 1))
    assert annotation_loss(pair, pair).item() == pytest.approx(
        math.log(1 + CLASSES * math.exp(-SURE)), rel=1e-4
    )
    assert annotation_loss(wrong, pair).item() == pytest.approx(annotation_loss(pair, pair).item() + SURE)


def test_image_losses_see_the_image_alone() -> None:
    given = batch()
    pair = real_pair(given["image"], given["annotation"], CLASSES)
    other = torch.cat([given["image"] + 0.25, torch.randn(2, CLASSES + 1, SIDE, SIDE)], dim=1)
    assert OnImage(ConditionWeighted("l1"))(other, pair, given["label"]).item() == pytest.approx(0.25)


def test_the_discriminator_sees_both_parts_and_its_gradient_reaches_both() -> None:
    torch.manual_seed(0)
    given = batch()
    discriminator = PairDiscriminator(CLASSES, "onehot", width=4).eval()
    pair = real_pair(given["image"], given["annotation"], CLASSES).requires_grad_()
    discriminator(pair, given["label"]).logits[0].sum().backward()
    gradient = pair.grad
    assert gradient is not None and (gradient.abs().amax((0, 2, 3)) > 0).all()
    shifted = torch.cat([pair[:, :1], pair[:, 1:] + 3.0], dim=1)  # the same probabilities
    logits = [discriminator(x, given["label"]).logits[0] for x in (pair, shifted)]
    assert torch.allclose(*logits, atol=1e-4)


def test_the_generator_fits_the_pairs() -> None:
    generator = HeartGenerator(CLASSES, "onehot", out_channels=2 + CLASSES, levels=4, width=4).eval()
    pair = generator(batch()["label"])
    assert pair.shape == (2, 2 + CLASSES, SIDE, SIDE)
    assert pair[:, 0].abs().max() <= 1


@pytest.mark.parametrize("decollated", [False, True])
def test_evaluators_outputs_are_taken_apart(decollated: bool) -> None:
    given = batch()
    label, target = label_to_pair(given)
    assert torch.equal(label, given["label"]) and target.shape == (2, 2, SIDE, SIDE)
    pair = real_pair(given["image"] / 2, (given["annotation"] + 1) % (CLASSES + 1), CLASSES)
    whole = {"image": label, "label": target, "pred": pair}
    output = [{name: value[n] for name, value in whole.items()} for n in range(2)] if decollated else whole
    generated, real, true = image_part(output)
    assert torch.equal(generated, given["image"] / 2) and torch.equal(real, given["image"])
    assert torch.equal(true, given["annotation"])
    assert torch.equal(annotation_part(output)[0], (given["annotation"] + 1) % (CLASSES + 1))
    assert torch.equal(condition_part(output)[0], given["label"])
    assert torch.equal(annotation_part(output)[1], condition_part(output)[1])
