"""The step of plain supervised training: one network, one optimiser, a target in the batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from common.training.steps import Context, Step

Loss = Callable[[Tensor, Tensor], Tensor]


class SupervisedStep(Step):
    """Teaches a network to give the batch's target: a segmenter, a classifier or an autoencoder.

    Args:
        terms: losses by name, each called as ``term(prediction, target) -> scalar``; their sum weighted by
            ``weights`` is minimised.
        inputs: entries of the batch that the network takes.
        target: entry with what it should give; an autoencoder's is its input.
    """

    def __init__(
        self,
        terms: Mapping[str, Loss],
        inputs: Sequence[str] = ("image",),
        target: str = "label",
        network: str = "G",
        name: str = "G",
        optimizer: str = "G",
        weights: Mapping[str, float] | None = None,
        repeat: int = 1,
    ) -> None:
        super().__init__(name, optimizer, (network,), (), weights, repeat)
        self.terms, self.network = dict(terms), network
        self.inputs, self.target = tuple(inputs), target

    def losses(self, context: Context) -> dict[str, Tensor]:
        """``NAME_term`` for each term."""
        prediction = context.output(self.network, self.inputs)
        target = context.batch[self.target]
        return {f"{self.name}_{name}": term(prediction, target) for name, term in self.terms.items()}
