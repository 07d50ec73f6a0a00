"""The steps of a training: one optimiser's update each, on networks known by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from common.errors import UserError
from common.losses.adversarial import AdversarialLoss, gradient_penalty, zero_centred_penalty
from common.losses.reconstruction import feature_matching_loss
from common.networks.diffusion import DiffusionGenerator
from common.networks.discriminators import AugmentedDiscriminator, DiscriminatorOutput
from common.training.shape_check import BETWEEN, check_critic, check_penalty, warn_of_tied_samples

Batch = Mapping[str, Any]
Seen = tuple[Tensor, Tensor | None]  # images and the discriminator's condition


class Context:
    """Shared state of the steps of one iteration: networks, the current batch, cached outputs.

    A generator's output for a batch is computed once and serves the discriminator's step (detached) and the
    generator's (with its graph), as long as neither the batch nor the generator has changed.
    ``last_outputs`` holds the newest output of each network, detached, for handlers.

    Attributes:
        learning: names of the networks that this step, or a later one on the same batch, trains; outputs of
            others get no graph. None for all.
    """

    def __init__(self, networks: Mapping[str, nn.Module]) -> None:
        self.networks = networks
        self.batch: Batch = {}
        self.measures: dict[str, Tensor] = {}
        self.last_outputs: dict[str, Tensor] = {}
        self.learning: frozenset[str] | None = None
        self._outputs: dict[tuple[str, tuple[str, ...]], Tensor] = {}

    def use(self, batch: Batch) -> None:
        """Makes ``batch`` the current one and drops outputs for another batch."""
        if batch is not self.batch:
            self.batch, self._outputs = batch, {}

    def forget(self, networks: Sequence[str]) -> None:
        """Drops outputs of networks whose weights have changed."""
        self._outputs = {key: value for key, value in self._outputs.items() if key[0] not in networks}

    def output(self, network: str, inputs: Sequence[str]) -> Tensor:
        """Applies ``network`` to the batch's entries ``inputs``, once per batch and weights."""
        key = network, tuple(inputs)
        if key not in self._outputs:
            learns = self.learning is None or network in self.learning
            with torch.set_grad_enabled(torch.is_grad_enabled() and learns):
                self._outputs[key] = self.networks[network](*(self.batch[name] for name in inputs))
            self.last_outputs[network] = self._outputs[key].detach()
        return self._outputs[key]


class Step:
    """Base class: one optimiser's update, which minimises the weighted sum of named losses.

    Args:
        name: prefix of its losses in the logs.
        optimizer: name of the optimiser.
        trains: networks whose weights it updates.
        freezes: networks that its gradient passes through but does not update.
        weights: weight of each loss in the sum; default 1.
        repeat: updates per iteration, each on a new batch.
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
        """Names of the networks with a gradient penalty, which cannot be compiled."""
        return ()

    def check(self, networks: Mapping[str, nn.Module], optimizer: Optimizer) -> None:
        """Raises `UserError` before a run if the step's loss does not fit the networks or the optimiser."""

    def losses(self, context: Context) -> dict[str, Tensor]:
        """Returns named scalar losses for the context's batch, unweighted."""
        raise NotImplementedError

    def total(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Returns the weighted sum.

        Raises:
            UserError: a weight names an unknown loss.
        """
        unknown = set(self.weights) - set(losses)
        if unknown:
            raise UserError(f"step {self.name}: no loss called {sorted(unknown)}; it has {sorted(losses)}")
        return torch.stack([self.weights.get(name, 1.0) * value for name, value in losses.items()]).sum()

    def state_dict(self) -> dict[str, Any]:
        """Returns the step's state between iterations (a pool of images, say): tensors and numbers."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores ``state_dict``."""


class DiscriminatorStep(Step):
    """Update of a discriminator on real and generated images.

    Args:
        adversarial: the loss's kind.
        inputs: entries of the batch that the generator takes, e.g. ``("label",)`` or ``("latent",)``.
        condition: entry with the discriminator's condition; None for unconditional.
        real: entry with the real images (B, C, H, W) in [-1, 1].
        penalty: coefficient of the gradient penalty (Gulrajani et al. 2017: 10); 0 for none.
        penalty_at: ``between`` real and generated images, towards slope 1 (WGAN-GP); or towards slope 0 at
            ``real`` images (R1), ``fake`` ones (R2) or ``both``, each half its squared gradient times the
            coefficient (Mescheder et al. 2018; both: R3GAN, Huang et al. 2024).
        penalty_interval: updates per penalty, which is scaled up by it ("lazy regularisation", Karras et al.
            2020, appendix B). The updates between log 0, so that the log's mean is the penalty's.
    Raises:
        UserError: an unknown ``penalty_at``, or an interval below 1.
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
        penalty_at: str = BETWEEN,
        penalty_interval: int = 1,
    ) -> None:
        super().__init__(name, optimizer, (discriminator,), (), weights, repeat)
        check_penalty(penalty_at, penalty_interval)
        self.penalty_at, self.penalty_interval, self.updates = penalty_at, penalty_interval, 0
        self.adversarial, self.inputs, self.condition = adversarial, tuple(inputs), condition
        self.generator, self.discriminator = generator, discriminator
        self.real, self.penalty = real, penalty
        if penalty:
            self.weights.setdefault(f"{name}_penalty", penalty)

    @property
    def penalised(self) -> tuple[str, ...]:
        """The discriminator if there is a penalty."""
        return (self.discriminator,) if self.penalty else ()

    def check(self, networks: Mapping[str, nn.Module], optimizer: Optimizer) -> None:
        """See `common.training.shape_check.check_critic`."""
        discriminator, clip = networks[self.discriminator], getattr(optimizer, "weight_clip", None)
        check_critic(discriminator, self.adversarial, self.penalty, clip, self.penalty_at)
        warn_of_tied_samples(discriminator, self.penalty)

    def generated(self, context: Context) -> Tensor:
        """Returns the generated images (B, C, H, W) without gradients; overridden to use a pool."""
        return context.output(self.generator, self.inputs).detach()

    def conditions(self, context: Context) -> tuple[Tensor | None, Tensor | None]:
        """Returns the conditions of real and of generated images; overridden where they differ."""
        condition = context.batch.get(self.condition or "")
        return condition, condition

    def losses(self, context: Context) -> dict[str, Tensor]:
        """Returns ``NAME_adversarial`` and, with a penalty, ``NAME_penalty``.

        The penalty is computed in float32: squared gradients overflow in float16. Between the images it uses
        the real ones' condition, at an image its own.
        """
        image, (condition, fake_condition) = context.batch[self.real], self.conditions(context)
        fake = self.generated(context)
        critic = context.networks[self.discriminator]
        real_logits = critic(image, condition).logits
        fake_logits = critic(fake, fake_condition).logits
        self._measure(context, real_logits, fake_logits)
        losses = {f"{self.name}_adversarial": self.adversarial.discriminator_loss(real_logits, fake_logits)}
        if self.penalty:
            due = self.updates % self.penalty_interval == 0
            self.updates += 1
            losses[f"{self.name}_penalty"] = (
                self.penalty_interval * self._penalty(critic, (image, condition), (fake, fake_condition))
                if due
                else real_logits[0].new_zeros((), dtype=torch.float32)
            )
        return losses

    def _penalty(self, critic: nn.Module, real: Seen, fake: Seen) -> Tensor:
        def scores(condition: Tensor | None) -> Callable[[Tensor], Tensor]:
            precise = _float32(condition)  # VEEGAN's comes from a network
            return lambda images: _sum_of_scores(critic(images, precise))

        with torch.autocast(real[0].device.type, enabled=False):
            if self.penalty_at == BETWEEN:
                return gradient_penalty(scores(real[1]), real[0], fake[0])
            samples = {"real": [real], "fake": [fake], "both": [real, fake]}[self.penalty_at]
            terms = [zero_centred_penalty(scores(condition), images) for images, condition in samples]
            return torch.stack(terms).sum()

    def state_dict(self) -> dict[str, Any]:
        """Returns the position in the penalty's interval."""
        return {"updates": self.updates % self.penalty_interval} if self.penalty_interval > 1 else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores ``state_dict``."""
        self.updates = int(state.get("updates", 0))

    def _measure(self, context: Context, real: list[Tensor], fake: list[Tensor]) -> None:
        threshold = self.adversarial.threshold
        if self.adversarial.paired is not None:  # right is which of the two is the real one
            hits = [one > other for one, other in zip(real, fake, strict=True)]
            context.measures[f"{self.name}_accuracy_pairs"] = _share(hits)
        if threshold is None:  # a critic does not say what is real
            return
        context.measures[f"{self.name}_accuracy_real"] = _share([logits > threshold for logits in real])
        context.measures[f"{self.name}_accuracy_fake"] = _share([logits <= threshold for logits in fake])


class GeneratorStep(Step):
    """Update of a generator: adversarial loss, further terms, feature matching.

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
        """Raises `UserError` on feature matching with an augmented discriminator."""
        if self.feature_matching and isinstance(networks[self.discriminator], AugmentedDiscriminator):
            raise UserError(
                "feature_matching compares what the discriminator sees of real and of generated images, and "
                "discriminator_augment moves them apart; set one of the two to 0 or null"
            )

    def losses(self, context: Context) -> dict[str, Tensor]:
        """Returns ``NAME_adversarial``, ``NAME_term`` for each term, ``NAME_features`` with matching.

        Paired losses and feature matching also run the discriminator on the real images.
        """
        image, condition = context.batch[self.real], context.batch.get(self.condition or "")
        prediction = context.output(self.generator, self.inputs)
        critic = context.networks[self.discriminator]
        critique: DiscriminatorOutput = critic(prediction, condition)
        truth: DiscriminatorOutput | None = None
        if self.feature_matching or self.adversarial.paired is not None:
            with torch.no_grad():
                truth = critic(image, condition)
        real_logits = None if truth is None else truth.logits
        losses = {f"{self.name}_adversarial": self.adversarial.generator_loss(critique.logits, real_logits)}
        for name, term in self.terms.items():
            losses[f"{self.name}_{name}"] = term(prediction, image, condition)
        if self.feature_matching and truth is not None:
            losses[f"{self.name}_features"] = feature_matching_loss(truth.features, critique.features)
        return losses


def _sum_of_scores(critique: DiscriminatorOutput) -> Tensor:
    """Returns the sum of the samples' scores, each the mean over logits, then scales.

    The gradient of the sum is that of each sample's own score.
    """
    return torch.stack([logits.flatten(1).mean(1).sum() for logits in critique.logits]).mean()


def _float32(condition: Tensor | None) -> Tensor | None:
    """Converts half precision to float32; class indices stay."""
    return condition.float() if condition is not None and condition.is_floating_point() else condition


def _share(hits: list[Tensor]) -> Tensor:
    """Returns the mean of boolean maps; all scales have the same weight."""
    return torch.stack([hit.float().mean() for hit in hits]).mean()


Loss = Callable[[Tensor, Tensor], Tensor]


class SupervisedStep(Step):
    """Update of a network towards the batch's target: a segmenter, a classifier or an autoencoder.

    Args:
        terms: losses by name, each called as ``term(prediction, target) -> scalar``; their sum weighted by
            ``weights`` is minimised.
        inputs: entries of the batch that the network takes.
        target: entry with the target; an autoencoder's is its input.
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
        """Returns ``NAME_term`` for each term."""
        prediction = context.output(self.network, self.inputs)
        target = context.batch[self.target]
        return {f"{self.name}_{name}": term(prediction, target) for name, term in self.terms.items()}


class DiffusionStep(Step):
    """Trains a `common.networks.diffusion.DiffusionGenerator` to denoise (Ho et al. 2020, algorithm 1).

    Timesteps and noise are drawn from torch's generator of the device, whose state travels in the resume
    file. The timesteps of a batch are spread evenly over the schedule with one random offset (Kingma et al.
    2021, "Variational diffusion models", appendix I): the loss is the same on average and steadier.

    Args:
        condition: entry of the batch that the model is conditioned on; None for none.
        real: entry with the images (B, 1, S, S) in [-1, 1].
        min_snr: bound of the signal-to-noise ratio in the weights of timesteps (Hang et al. 2023: 5); 0 for
            equal weights of what is predicted.
    """

    def __init__(
        self,
        condition: str | None = "label",
        real: str = "image",
        min_snr: float = 0.0,
        network: str = "G",
        name: str = "G",
        optimizer: str = "G",
        weights: Mapping[str, float] | None = None,
        repeat: int = 1,
    ) -> None:
        super().__init__(name, optimizer, (network,), (), weights, repeat)
        self.condition, self.real, self.network = condition, real, network
        self.min_snr = min_snr

    def check(self, networks: Mapping[str, nn.Module], optimizer: Optimizer) -> None:
        """Raises `UserError` if the network is no diffusion model or has another kind of condition."""
        network = networks[self.network]
        if not isinstance(network, DiffusionGenerator):
            raise UserError(f"network_def: {type(network).__name__} is no diffusion model")
        if bool(network.condition_channels) != (self.condition is not None):
            raise UserError(
                f"network_def#condition_channels {network.condition_channels} does not fit the step's "
                f"condition, {self.condition}"
            )

    def losses(self, context: Context) -> dict[str, Tensor]:
        """Returns ``NAME_denoising``, the mean squared error; ``state.output`` gets the estimated images."""
        network, image = context.networks[self.network], context.batch[self.real]
        assert isinstance(network, DiffusionGenerator)  # see `check`
        mask = None if self.condition is None else context.batch[self.condition]
        timesteps = spread_timesteps(len(image), network.scheduler.num_train_timesteps, image.device)
        noise = torch.randn_like(image)
        prediction, target, estimate = network.predict(image, noise, timesteps, mask)
        context.last_outputs[self.network] = estimate.detach()
        errors = (prediction - target).square().mean((1, 2, 3))  # (B,)
        if self.min_snr:
            kept = network.scheduler.alphas_cumprod[timesteps]  # (B,)
            errors = errors * min_snr_weights(kept, network.scheduler.prediction_type, self.min_snr)
        return {f"{self.name}_denoising": errors.mean()}


def spread_timesteps(count: int, timesteps: int, device: torch.device) -> Tensor:
    """Draws ``count`` evenly spaced timesteps (count,) below ``timesteps`` with one random offset."""
    positions = torch.arange(count, device=device) / count + torch.rand(1, device=device)
    return ((positions % 1) * timesteps).long().clamp(max=timesteps - 1)


def min_snr_weights(kept: Tensor, prediction: str, bound: float) -> Tensor:
    """Returns weights of the prediction's squared error that equal min(SNR, bound) for the image's.

    Args:
        kept: the image's share of the variance (B,); SNR is kept / (1 - kept).
        prediction: what is predicted.
        bound: of the SNR.

    Example:
        >>> min_snr_weights(torch.tensor([0.5, 0.9]), "epsilon", bound=5.0)  # SNR 1 and 9
        tensor([1.0000, 0.5556])
    """
    ratio = kept / (1 - kept).clamp(min=1e-8)
    bounded = ratio.clamp(max=bound)
    divisor = {"v_prediction": ratio + 1, "epsilon": ratio, "sample": torch.ones_like(ratio)}[prediction]
    return bounded / divisor.clamp(min=1e-8)
