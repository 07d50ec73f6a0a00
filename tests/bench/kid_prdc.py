"""KID, precision, recall, density and coverage of 10 000 x 512 features against whole matrices in numpy."""

from __future__ import annotations

import functools

import numpy as np
import torch

from common.metrics.prdc import NEIGHBOURS, kid_prdc
from common.rng import make_rng
from tests.bench.harness import Result, Work, alternate, benchmark, extra_megabytes, seconds
from tests.common.metrics.plain_pairs import plain_kid, plain_prdc

FEATURES, DIMENSION, FACTORS = 10_000, 512, 16
LIMIT = 1000.0  # MB, the features themselves included
REPEATS = 5


@benchmark("kid_prdc")
def kid_prdc_seconds() -> Result:
    """One walk in blocks, in float32 where its bounds allow, against the same numbers from numpy float64."""
    torch.set_num_threads(2)
    real, fake = features()
    first, second = real.astype(np.float64), fake.astype(np.float64)

    def plain() -> None:
        plain_kid(first, second)
        plain_prdc(first, second, NEIGHBOURS)

    ours = functools.partial(kid_prdc, torch.from_numpy(real), torch.from_numpy(fake))
    kid_prdc(*(torch.from_numpy(part[:1000]) for part in (real, fake)))  # the libraries' own start
    fast, slow = alternate(lambda: seconds(ours), lambda: seconds(plain), REPEATS)
    return Result("kid_prdc", slow / fast, 5.0, fast, slow, "s", REPEATS)


@benchmark("kid_prdc_memory")
def kid_prdc_memory() -> Result:
    """The same walk's peak memory against its limit."""
    used = extra_megabytes(blocks) + 2 * FEATURES * DIMENSION * 4 / 1e6
    return Result("kid_prdc_memory", LIMIT / used, 1.0, used, LIMIT, "MB", 1)


def blocks() -> Work:
    """A first, small call has loaded the libraries' own buffers."""
    real, fake = map(torch.from_numpy, features())
    kid_prdc(real[:1000], fake[:1000])
    return functools.partial(kid_prdc, real, fake)


def features(count: int = FEATURES) -> tuple[np.ndarray, np.ndarray]:
    """Real and generated ones as an extractor gives them: few factors, rectified; (N, D) float32 each."""
    numbers = make_rng(0, "bench", "features")
    mixing = numbers.standard_normal((FACTORS, DIMENSION))

    def drawn(spread: float, level: float) -> np.ndarray:
        factors = numbers.standard_normal((count, FACTORS)) * spread
        noise = numbers.standard_normal((count, DIMENSION)) * 0.3
        return np.maximum(factors @ mixing + noise + level, 0).astype(np.float32)

    return drawn(1.0, 2.0), drawn(0.9, 2.05)
