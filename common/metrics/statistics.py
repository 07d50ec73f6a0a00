"""Mean and covariance of features in constant memory, batch by batch."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor


class StreamingMoments:
    """Mean and scatter of a stream of feature vectors, merged batch-wise (Chan, Golub & LeVeque 1979).

    Holds one ``dimension`` x ``dimension`` float64 matrix however long the stream is. Streams of several
    processes are joined by ``merge``; ``state_dict`` holds tensors only.

    Args:
        dimension: length of a feature vector.
        device: where the sums are kept; a device without float64 (MPS) should keep them on the CPU.
    """

    def __init__(self, dimension: int, device: torch.device | str = "cpu") -> None:
        self.count = torch.zeros((), dtype=torch.int64, device=device)
        self.mean = torch.zeros(dimension, dtype=torch.float64, device=device)
        self.scatter = torch.zeros(dimension, dimension, dtype=torch.float64, device=device)

    @torch.no_grad()
    def update(self, features: Tensor) -> None:
        """Adds a batch of features (B, dimension)."""
        if len(features) == 0:
            return
        batch = features.detach().to(self.mean)  # (B, D)
        mean = batch.mean(0)
        centred = batch - mean
        self._join(len(features), mean)
        self.scatter.addmm_(centred.T, centred)

    @torch.no_grad()
    def merge(self, other: Self) -> None:
        """Adds another stream's statistics, as if its features had been seen here."""
        if int(other.count) == 0:
            return
        self._join(int(other.count), other.mean.to(self.mean))
        self.scatter += other.scatter.to(self.scatter)

    @property
    def covariance(self) -> Tensor:
        """The unbiased covariance (D, D), float64; zeros for fewer than two vectors."""
        return self.scatter / max(int(self.count) - 1, 1)

    def state_dict(self) -> dict[str, Tensor]:
        """``count``, ``mean`` and ``scatter``: a sufficient statistic of everything seen."""
        return {"count": self.count, "mean": self.mean, "scatter": self.scatter}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Takes over what ``state_dict`` gave, on this object's device."""
        for name, value in self.state_dict().items():
            value.copy_(state[name])

    def _join(self, count: int, mean: Tensor) -> None:
        """Moves count and mean; adds the scatter between the two means."""
        seen, total = int(self.count), int(self.count) + count
        delta = mean - self.mean
        self.scatter.addr_(delta, delta, alpha=seen * count / total)
        self.mean += delta * (count / total)
        self.count.fill_(total)
