"""The steps of adversarial training: one optimiser's update each, on networks known by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from common.errors import UserError
from common.losses.adversarial import AdversarialLoss
from common.losses.feature_matching import feature_matching_loss
from common.losses.gradient_penalty import gradient_penalty
from common.networks.augmented import AugmentedDiscriminator
from common.networks.discriminators import Critique
from common.training.fitting import check_critic, warn_of_tied_samples

Batch = Mapping[str, Any]


class Context:
    """What the steps of one iteration share: the networks, the current batch and outputs worth keeping.

    A generator's output for a batch is computed once and serves the discriminator's step (detached) and
    the generator's (with its graph), as long as neither the batch nor the generator has changed.
    ``last_outputs`` keeps the newest output of each network, detached, for those who look on.

    Attributes:
        learning: names of the networks that this step, or a later one on the same batch, trains: the graph of
            any other network's output would be for nothing, and is not built. None for all.
    """

    def __init__(self, networks: Mapping[str, nn.Module]) -> None:
        self.networks = networks
        self.batch: Batch = {}
        self.measures: dict[str, Tensor] = {}
        self.last_outputs: dict[str, Tensor] = {}
        self.learning: frozenset[str] | None = None
        self._outputs: dict[tuple[str, tuple[str, ...]], Tensor] = {}

    def use(self, batch: Batch) -> None:
        """Makes ``batch`` the current one; outputs for another batch are forgotten."""
        if batch is not self.batch:
            self.batch, self._outputs = batch, {}

    def forget(self, networks: Sequence[str]) -> None:
        """Forgets outputs of networks whose weights have changed."""
        self._outputs = {key: value for key, value in self._outputs.items() if key[0] not in networks}

    def output(self, network: str, inputs: Sequence[str]) -> Tensor:
        """``network`` applied to the batch's entries ``inputs``, computed once a batch and set of weights."""
        key = network, tuple(inputs)
        if key not in self._outputs:
            learns = self.learning is None or network in self.learning
            with torch.set_grad_enabled(torch.is_grad_enabled() and learns):
                self._outputs[key] = self.networks[network](*(self.batch[name] for name in inputs))
            self.last_outputs[network] = self._outputs[key].detach()
        return self._outputs[key]


class Step:
    """One optimiser's update: named losses, their weighted sum is minimised.

    Args:
        name: prefix of its losses in the logs.
        optimizer: name of the optimiser.
        trains: networks whose weights it updates.
        freezes: networks that its gradient passes through without reaching their weights.
        weights: weight of each loss in the sum (1 where not named).
        repeat: updates an iteration, each on a fresh batch.
    """

    def __init__(
        self,
        name: str,
        optimizer: str,
        trains: Sequence[str],
        freezes: Sequence[str] = (),
        weights: Mapping[str, float] | None = None,
        repeat: int = 1,
    ) -> None:
        if repeat < 1:
            raise UserError(f"step {name}: repeat is {repeat}; it must be at least 1")
        self.name, self.optimizer, self.repeat = name, optimizer, repeat
        self.trains, self.freezes = tuple(trains), tuple(freezes)
        self.weights = dict(weights or {})

    @property
    def penalised(self) -> tuple[str, ...]:
        """Networks whose gradients it differentiates again; compiled ones cannot."""
        return ()

    def check(self, networks: Mapping[str, nn.Module], optimizer: Optimizer) -> None:
        """Refuses networks or an optimiser that the step's loss has no meaning with, before a run begins.

        Raises:
            UserError: says what and how to mend it.
        """

    def losses(self, context: Context) -> dict[str, Tensor]:
        """Named scalar losses for the context's batch, unweighted."""
        raise NotImplementedError

    def total(self, losses: Mapping[str, Tensor]) -> Tensor:
        """The weighted sum.

        Raises:
            UserError: a weight names a loss that this step does not have.
        """
        unknown = set(self.weights) - set(losses)
        if unknown:
            raise UserError(f"step {self.name}: no loss called {sorted(unknown)}; it has {sorted(losses)}")
        return torch.stack([self.weights.get(name, 1.0) * value for name, value in losses.items()]).sum()

    def state_dict(self) -> dict[str, Any]:
        """What the step remembers between iterations (a pool of images, say): tensors and plain numbers."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes back what ``state_dict`` gave."""


class DiscriminatorStep(Step):
    """Teaches a discriminator to tell real images from the generator's.

    Args:
        adversarial: the loss's kind.
        inputs: entries of the batch that the generator takes, e.g. ``("label",)`` or ``("latent",)``.
        condition: entry that the discriminator sees beside the image; None for unconditional.
        real: entry with the real images (B, C, H, W) in [-1, 1].
        penalty: coefficient of the gradient penalty (Gulrajani et al. 2017: 10); 0 for none.
    """

    def __init__(
        self,
        adversarial: AdversarialLoss,
        inputs: Sequence[str] = ("label",),
        condition: str | None = "label",
        real: str = "image",
        penalty: float = 0.0,
        generator: str = "G",
        discriminator: str = "D",
        name: str = "D",
        optimizer: str = "D",
        weights: Mapping[str, float] | None = None,
        repeat: int = 1,
    ) -> None:
        super().__init__(name, optimizer, (discriminator,), (), weights, repeat)
        self.adversarial, self.inputs, self.condition = adversarial, tuple(inputs), condition
        self.generator, self.discriminator = generator, discriminator
        self.real, self.penalty = real, penalty
        if penalty:
            self.weights.setdefault(f"{name}_penalty", penalty)

    @property
    def penalised(self) -> tuple[str, ...]:
        """The discriminator, where there is a penalty."""
        return (self.discriminator,) if self.penalty else ()

    def check(self, networks: Mapping[str, nn.Module], optimizer: Optimizer) -> None:
        """See `common.training.fitting.check_critic`."""
        discriminator, clip = networks[self.discriminator], getattr(optimizer, "weight_clip", None)
        check_critic(discriminator, self.adversarial, self.penalty, clip)
        warn_of_tied_samples(discriminator, self.penalty)

    def generated(self, context: Context) -> Tensor:
        """The images to call fake (B, C, H, W), without gradients; override it to draw them from a pool."""
        return context.output(self.generator, self.inputs).detach()

    def conditions(self, context: Context) -> tuple[Tensor | None, Tensor | None]:
        """What is seen beside the real and beside the generated images; override it where they differ."""
        condition = context.batch.get(self.condition or "")
        return condition, condition

    def losses(self, context: Context) -> dict[str, Tensor]:
        """``NAME_adversarial``, and ``NAME_penalty`` where there is one (with the real images' condition).

        The penalty is computed in float32: squared gradients overflow in float16.
        """
        image, (condition, fake_condition) = context.batch[self.real], self.conditions(context)
        fake = self.generated(context)
        critic = context.networks[self.discriminator]
        real_logits = critic(image, condition).logits
        fake_logits = critic(fake, fake_condition).logits
        self._measure(context, real_logits, fake_logits)
        losses = {f"{self.name}_adversarial": self.adversarial.discriminator_loss(real_logits, fake_logits)}
        if self.penalty:
            precise = _float32(condition)  # VEEGAN's comes from a network
            with torch.autocast(image.device.type, enabled=False):
                losses[f"{self.name}_penalty"] = gradient_penalty(
                    lambda images: _sum_of_scores(critic(images, precise)), image, fake
                )
        return losses

    def _measure(self, context: Context, real: list[Tensor], fake: list[Tensor]) -> None:
        threshold = self.adversarial.threshold
        if threshold is None:  # a critic does not say what is real
            return
        context.measures[f"{self.name}_accuracy_real"] = _share([logits > threshold for logits in real])
        context.measures[f"{self.name}_accuracy_fake"] = _share([logits <= threshold for logits in fake])


class GeneratorStep(Step):
    """Teaches a generator to pass for real, and to match the real image where there is one.

    Args:
        adversarial: the loss's kind.
        terms: further losses by name, each called as ``term(prediction, image, condition) -> scalar``.
        feature_matching: weight of the discriminator's feature distance (Wang et al. 2018: 10); 0 for none.
        real: entry with the real images (B, C, H, W) in [-1, 1].
    """

    def __init__(
        self,
        adversarial: AdversarialLoss,
        terms: Mapping[str, Callable[[Tensor, Tensor, Tensor | None], Tensor]] | None = None,
        feature_matching: float = 0.0,
        inputs: Sequence[str] = ("label",),
        condition: str | None = "label",
        real: str = "image",
        generator: str = "G",
        discriminator: str = "D",
        name: str = "G",
        optimizer: str = "G",
        weights: Mapping[str, float] | None = None,
        repeat: int = 1,
    ) -> None:
        super().__init__(name, optimizer, (generator,), (discriminator,), weights, repeat)
        self.adversarial, self.terms = adversarial, dict(terms or {})
        self.inputs, self.condition, self.feature_matching = tuple(inputs), condition, feature_matching
        self.generator, self.discriminator, self.real = generator, discriminator, real
        if feature_matching:
            self.weights.setdefault(f"{name}_features", feature_matching)

    def check(self, networks: Mapping[str, nn.Module], optimizer: Optimizer) -> None:
        """Features of images that were moved differently cannot be compared.

        Raises:
            UserError: features are to be matched, and the discriminator sees each batch changed anew.
        """
        if self.feature_matching and isinstance(networks[self.discriminator], AugmentedDiscriminator):
            raise UserError(
                "feature_matching compares what the discriminator sees of real and of generated images, and "
                "discriminator_augment moves them apart; set one of the two to 0 or null"
            )

    def losses(self, context: Context) -> dict[str, Tensor]:
        """``NAME_adversarial``, one for each term, and ``NAME_features`` where features are matched."""
        image, condition = context.batch[self.real], context.batch.get(self.condition or "")
        prediction = context.output(self.generator, self.inputs)
        critic = context.networks[self.discriminator]
        critique: Critique = critic(prediction, condition)
        losses = {f"{self.name}_adversarial": self.adversarial.generator_loss(critique.logits)}
        for name, term in self.terms.items():
            losses[f"{self.name}_{name}"] = term(prediction, image, condition)
        if self.feature_matching:
            with torch.no_grad():
                truth: Critique = critic(image, condition)
            losses[f"{self.name}_features"] = feature_matching_loss(truth.features, critique.features)
        return losses


def _sum_of_scores(critique: Critique) -> Tensor:
    """The samples' scores summed, each the mean over logits, then scales, as in the adversarial losses.

    The gradient of the sum is that of each sample's own score.
    """
    return torch.stack([logits.flatten(1).mean(1).sum() for logits in critique.logits]).mean()


def _float32(condition: Tensor | None) -> Tensor | None:
    """Half precision as float32; class indices as they are."""
    return condition.float() if condition is not None and condition.is_floating_point() else condition


def _share(hits: list[Tensor]) -> Tensor:
    """The mean of boolean maps, each scale weighing the same."""
    return torch.stack([hit.float().mean() for hit in hits]).mean()
