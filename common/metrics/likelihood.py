"""Average log-likelihood of real images under a Gaussian kernel density estimate of generated ones.

After Breuleux et al. 2011 and Goodfellow et al. 2014 (section 5): a Gaussian of one bandwidth on each
generated image, the bandwidth chosen on validation images, the density read at test images. The images'
vectors are meant to be `common.metrics.pixels.pixel_vectors`, 32 x 32 pixels in [0, 1]: no extractor has a
say, and the density is one of images. The value is in nats and depends on the space and on the number of
generated images, so it compares models of one setting only. It says little of looks (Theis et al. 2016):
training images in the place of generated ones, given as a baseline, need not score best.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from common.errors import UserError

NARROWEST, STEPS = 0.01, 25  # bandwidths tried: from this share of the widest that can be best, to the widest
CHUNK = 256  # images at once
SMALLEST = 1e-6  # bandwidth; stands for 0, at which copies would be infinitely likely


@dataclass(frozen=True)
class LogLikelihood:
    """What each test image says; the metric is the mean.

    Attributes:
        values: (N,) float64, nats.
        bandwidth: the standard deviation of the Gaussians, in the vectors' units.
    """

    values: Tensor
    bandwidth: float

    def mean(self) -> float:
        """Nats per image; higher is better."""
        return float(self.values.mean())


def log_likelihood(
    samples: Tensor, validation: Tensor, test: Tensor, bandwidths: Sequence[float] | None = None
) -> LogLikelihood:
    """The log density of each test image.

    Args:
        samples, validation, test: vectors (M, D), (V, D) and (N, D) of generated images and of two separate
            parts of the real ones.
        bandwidths: to choose from; by default `usual_bandwidths`.
    Raises:
        UserError: one of the sets is empty.
    """
    for name, vectors in {"generated": samples, "validation": validation, "test": test}.items():
        if not len(vectors):
            raise UserError(f"no {name} images for the log-likelihood; at least 1 is needed")
    widths = usual_bandwidths(samples, validation) if bandwidths is None else list(bandwidths)
    best = widths[int(log_densities(samples, validation, widths).mean(1).argmax())]
    return LogLikelihood(log_densities(samples, test, [best])[0], best)


def usual_bandwidths(samples: Tensor, validation: Tensor) -> list[float]:
    """A geometric row up to the root mean square difference of a coordinate.

    At the best bandwidth its square is a mean of squared differences in which near samples count more (the
    derivative of the likelihood is 0 there), so none above need be tried.
    """
    spread = samples.double().var(0, correction=0) + validation.double().var(0, correction=0)
    apart = samples.double().mean(0) - validation.double().mean(0)
    widest = math.sqrt(float((spread + apart.square()).mean()))
    row = torch.logspace(math.log10(NARROWEST), 0, STEPS, dtype=torch.float64) * widest
    return row.clamp_min(SMALLEST).tolist()


def log_densities(samples: Tensor, images: Tensor, bandwidths: Sequence[float]) -> Tensor:
    """log 1/M sum_m N(x; g_m, b^2) of images x (N, D) for B bandwidths b: (B, N) float64."""
    centre = samples.mean(0, dtype=torch.float64)
    kernels = samples.double() - centre  # (M, D)
    count, dimension = kernels.shape
    found = []
    for part in images.split(CHUNK):
        vectors = part.double() - centre
        squares = kernels.square().sum(1) + vectors.square().sum(1)[:, None]
        squared = (squares - 2 * vectors @ kernels.T).clamp_min(0)  # (n, M)
        found.append(torch.stack([(squared / (-2 * b * b)).logsumexp(1) for b in bandwidths]))
    widths = torch.tensor(bandwidths, dtype=torch.float64)[:, None]
    constant = math.log(count) + dimension / 2 * torch.log(2 * math.pi * widths**2)  # (B, 1)
    return torch.cat(found, dim=1) - constant
