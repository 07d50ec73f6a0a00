"""The steps of CycleGAN (Zhu et al. 2017): two generators against two discriminators, without pairs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import l1_loss

from common.errors import UserError
from common.losses.adversarial import AdversarialLoss
from common.rng import make_rng
from common.training import distributed
from common.training.steps import Context, DiscriminatorStep, Step


class ImagePool:
    """A history of generated images, half of what a discriminator sees (Zhu et al. 2017, section 4).

    Until the pool is full, each image is stored and returned. Then each is returned with probability 1/2;
    else it replaces a random stored one, which is returned. The draw for the k-th image of a process depends
    on (seed, name, rank, k) alone.

    Args:
        size: images in the pool; 0 for no pool.
        seed: the run's seed.
        name: distinguishes the pools of a run.
    Raises:
        UserError: a negative size.

    Example:
        >>> pool = ImagePool(size=2)
        >>> shown = pool.query(torch.zeros(5, 1, 8, 8))
        >>> shown.shape[0], len(pool.images)
        (5, 2)
    """

    def __init__(self, size: int = 50, seed: int = 0, name: str = "pool") -> None:
        if size < 0:
            raise UserError(f"pool_size {size}: give 0 for no pool, or the number of images")
        self.size, self.seed, self.name = size, seed, name
        self.images: list[Tensor] = []
        self.seen = 0

    def query(self, images: Tensor) -> Tensor:
        """Takes new images (B, C, H, W) and returns as many, new and old, without gradients."""
        if self.size == 0:
            return images
        return torch.stack([self._exchange(image) for image in images.detach()])

    def _exchange(self, image: Tensor) -> Tensor:
        draw = make_rng(self.seed, self.name, distributed.rank(), self.seen)
        self.seen += 1
        if len(self.images) < self.size:
            self.images.append(image.clone())
            return image
        if draw.random() < 0.5:
            return image
        index = int(draw.integers(self.size))
        old, self.images[index] = self.images[index], image.clone()
        return old.to(image.device)

    def state_dict(self) -> dict[str, Any]:
        """Returns each process's images and their count so far. A collective call: all processes make it."""
        kept = [image.cpu().contiguous() for image in self.images]
        return {"ranks": distributed.gather({"images": kept, "seen": self.seen})}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores ``state_dict``."""
        own = state["ranks"][distributed.rank()]
        self.images, self.seen = list(own["images"]), int(own["seen"])


Term = Callable[[Tensor, Tensor, Tensor | None], Tensor]


class PooledDiscriminatorStep(DiscriminatorStep):
    """A `DiscriminatorStep` whose generated images pass through a pool, which the resume file holds.

    Args:
        pool: holds images (B, C, H, W).
        penalty: coefficient of R1, the squared slope at real images; 0 for none.
        penalty_interval, others: as `DiscriminatorStep`; unconditional.
    """

    def __init__(
        self,
        adversarial: AdversarialLoss,
        pool: ImagePool,
        inputs: Sequence[str],
        real: str,
        generator: str,
        discriminator: str,
        name: str,
        optimizer: str = "D",
        penalty: float = 0.0,
        penalty_interval: int = 1,
    ) -> None:
        super().__init__(
            adversarial,
            inputs,
            condition=None,
            real=real,
            penalty=penalty,
            penalty_at="real",
            penalty_interval=penalty_interval,
            generator=generator,
            discriminator=discriminator,
            name=name,
            optimizer=optimizer,
        )
        self.pool = pool
        self.weights[f"{name}_adversarial"] = 0.5  # Zhu et al. halve it: D learns half as fast as G

    def generated(self, context: Context) -> Tensor:
        """Returns new and old images (B, C, H, W), without gradients."""
        return self.pool.query(super().generated(context))

    def state_dict(self) -> dict[str, Any]:
        """Returns the pool's state and the position in the penalty's interval."""
        return {**self.pool.state_dict(), **super().state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores ``state_dict``."""
        super().load_state_dict(state)
        self.pool.load_state_dict({name: value for name, value in state.items() if name != "updates"})


class CycleStep(Step):
    """Update of both generators of CycleGAN: adversarial, cycle and identity losses.

    G maps the batch's ``source`` x to the domain of ``target`` y, F maps back. The losses are
    ``NAME_adversarial_y`` (G(x) before D_Y), ``NAME_adversarial_x``, ``NAME_cycle_x`` (|F(G(x)) - x|),
    ``NAME_cycle_y``, ``NAME_identity_y`` (|G(y) - y|), ``NAME_identity_x``, and ``NAME_term`` for each
    further term.

    Args:
        adversarial: the loss's kind; least squares as published.
        cycle: weight of both cycle losses (Zhu et al. 2017, equation 3: 10).
        identity: weight of both identity losses, (section 5.2: half of ``cycle``); 0 leaves them out.
        terms: further losses of G(x) by name, each called as ``term(G(x), x, condition) -> scalar``.
        weights: of the terms by their full names.
        source, target, condition: entries of the batch: x and y (B, C, H, W) in [-1, 1], and the mask of x.
    """

    def __init__(
        self,
        adversarial: AdversarialLoss,
        cycle: float = 10.0,
        identity: float = 5.0,
        terms: Mapping[str, Term] | None = None,
        weights: Mapping[str, float] | None = None,
        source: str = "label",
        target: str = "image",
        condition: str = "mask",
        name: str = "G",
        optimizer: str = "G",
    ) -> None:
        shares = {"cycle": cycle, **({"identity": identity} if identity else {})}
        own = {f"{name}_{kind}_{side}": share for kind, share in shares.items() for side in "xy"}
        super().__init__(name, optimizer, ("G", "F"), ("D_X", "D_Y"), {**own, **(weights or {})})
        self.adversarial, self.identity, self.terms = adversarial, identity, dict(terms or {})
        self.source, self.target, self.condition = source, target, condition

    def losses(self, context: Context) -> dict[str, Tensor]:
        """Returns named scalar losses for the context's batch, unweighted."""
        x, y = context.batch[self.source], context.batch[self.target]
        there, back = context.output("G", (self.source,)), context.output("F", (self.target,))
        nets = context.networks
        judged = {"y": nets["D_Y"](there), "x": nets["D_X"](back)}
        losses = {f"adversarial_{k}": self.adversarial.generator_loss(v.logits) for k, v in judged.items()}
        losses |= {"cycle_x": l1_loss(nets["F"](there), x), "cycle_y": l1_loss(nets["G"](back), y)}
        if self.identity:
            losses |= {"identity_y": l1_loss(nets["G"](y), y), "identity_x": l1_loss(nets["F"](x), x)}
        for name, term in self.terms.items():
            losses[name] = term(there, x, context.batch.get(self.condition))
        return {f"{self.name}_{name}": value for name, value in losses.items()}
