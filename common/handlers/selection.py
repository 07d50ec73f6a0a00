"""Which of two checkpoints is better: one number from the validation metrics."""

from __future__ import annotations

import math
from collections.abc import Mapping

from common.errors import UserError

FID_PREFIX = "fid"
FAITHFULNESS = ("lesion_faithfulness", "structure_faithfulness")  # a model has one of them


def fid_then_faithfulness(metrics: Mapping[str, float]) -> float:
    """``FID * (2 - faithfulness)``, lower is better; faithfulness is clipped to [0, 1].

    FID alone would choose a model that draws good lungs and ignores the lesion mask: a few lesion pixels
    hardly move its features. Faithfulness alone would choose one that paints the mask onto noise. The
    product takes FID as it is for a model with the full contrast of lesions (or heart structures) and
    doubles it for one without any. SSIM and PSNR stay out: the mean image of the training set beats a
    trained generator on both.

    The FID is to be of an extractor that sees layout (`common.metrics.features.choosing_extractor` refuses
    others), or a model that puts anatomy in the wrong place would be chosen as gladly as one that does not.
    `common.handlers.best.BestModel` smooths the number over several validations.

    Args:
        metrics: one FID (``fid_<extractor>``; the first by name where there are several) and
            ``lesion_faithfulness`` or ``structure_faithfulness`` (1 = as in real images; missing or NaN, as
            in a set without lesions or conditions that are images, counts as 0 for all models alike).
    Raises:
        UserError: no FID among the metrics.
    """
    names = sorted(name for name in metrics if name.startswith(FID_PREFIX))
    if not names:
        given = ", ".join(metrics) or "none"
        raise UserError(f"choosing the best model needs a metric {FID_PREFIX}*; validation gave {given}")
    faithfulness = next((metrics[name] for name in FAITHFULNESS if name in metrics), math.nan)
    bounded = 0.0 if math.isnan(faithfulness) else min(max(faithfulness, 0.0), 1.0)
    return metrics[names[0]] * (2 - bounded)
