"""Handlers: they watch a run through ``engine.state`` and never train.

Each is a small class with ``attach(engine)``; those with a memory have ``state_dict`` and ``load_state_dict``
(tensors and plain numbers), which the resume file stores. `default_handlers` makes those of a training.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ignite.engine import Engine
from monai.engines import Evaluator
from torch import Tensor

from common.handlers.engine import TimeLimit
from common.handlers.image_logging import ImageGrid, Progression, SampleGrid
from common.handlers.logging import ProgressBar, TrainingLogger
from common.handlers.monitors import AccuracyAverage, Convergence, DivergenceGuard
from common.handlers.validation import Validation
from common.training.checkpoint import BestModelSaver, Pretrained, Resume, fid_then_faithfulness


class HandlerGroup:
    """Several handlers as one: attached in the order given, their states kept under their names.

    Args:
        handlers: by name; None leaves one out.

    Example:
        >>> from common.handlers.monitors import AccuracyAverage
        >>> group = HandlerGroup(accuracy=AccuracyAverage(), progress=None)
        >>> list(group.handlers)
        ['accuracy']
        >>> group.handlers["accuracy"].state_dict()
        {'averages': {}}
    """

    def __init__(self, **handlers: Any) -> None:
        self.handlers = {name: handler for name, handler in handlers.items() if handler is not None}

    def attach(self, engine: Engine) -> None:
        """Attaches all of them."""
        for handler in self.handlers.values():
            handler.attach(engine)


def default_handlers(
    output_dir: str | Path,
    evaluator: Evaluator,
    name: str | None = None,
    network: str = "G",
    losses: Sequence[str] | None = ("G_loss", "D_loss"),
    shown: Sequence[str] | None = None,
    metadata: Mapping[str, Any] | None = None,
    score: Callable[[Mapping[str, float]], float] | str = fid_then_faithfulness,
    mode: str = "min",
    val_interval: int = 1,
    val_smoothing: int = 1,
    examples: Mapping[str, Tensor] | None = None,
    images: ImageGrid | None = None,
    image_interval: int = 1,
    image_iterations: Sequence[int] = (),
    progression: Sequence[str] | None = None,
    log: TrainingLogger | None = None,
    monitors: Mapping[str, Any] | None = None,
    flat_patience: int | None = 50,
    converged_stops: bool = False,
    cpu_minutes: float | None = None,
    resume: bool = False,
    resume_interval: int = 0,
    resume_epochs: int = 1,
    pretrained: str | Path | None = None,
) -> HandlerGroup:
    """Makes the handlers of a training: guard, monitors, log, pictures, validation, best model, resume file.

    Ignite calls the handlers of an event in the order in which they were attached, and the order matters:
    the guard raises before anything of a bad iteration is written; monitors add to ``engine.state.logs``
    before the log writes it; the resume file comes after everything whose state it stores; the progress bar
    moves when an iteration is really done. All work at ITERATION_COMPLETED, "every N epochs" too: a handler
    at EPOCH_COMPLETED would come after a resume file of that iteration, and a run killed between the two
    would never make up for it.

    Args:
        output_dir: gets ``models/model.pt`` and its resume files, ``logs/`` and ``logs/samples/``.
        evaluator: validates every ``val_interval`` epochs and at the end.
        name: of a second model of the folder: ``models/NAME.pt``, ``models/NAME/``, ``logs/NAME/``.
        network: name of the network that is pictured and saved.
        losses: watched for convergence, see `common.handlers.monitors.Convergence`; None for no such watch.
        shown: losses in the progress bar.
        metadata: facts in ``models/model.json``, see `common.training.checkpoint.BestModelSaver`.
        score, mode: of a validation, which choose the best model.
        val_smoothing: validations whose median score counts.
        examples: a batch that is drawn every ``image_interval`` epochs and at ``image_iterations``, see
            `common.handlers.image_logging.ImageGrid`, and `common.handlers.image_logging.SampleGrid` where it
            has noise and no condition; None for none.
        images: a picture of another kind, instead of ``examples``.
        progression: names of the label's classes: draws ``logs/progression.png``, the pictures side by side.
        log: the run's log, where ``images`` needs it too.
        monitors: further handlers by name, which add to ``engine.state.logs``; one named as a default handler
            takes its place.
        flat_patience: iterations with constant images that are borne; None for any number.
        converged_stops: end the run when the losses have settled.
        cpu_minutes: end the run after this much computing time.
        resume: go on with the run in ``output_dir``.
        resume_interval: iterations between resume files within an epoch; 0 for none.
        resume_epochs: epochs between resume files.
        pretrained: file of weights that a new run starts from, see `common.training.checkpoint`.
    """
    output = Path(output_dir)
    logs, models = output / "logs" / (name or ""), output / "models" / (name or "")
    log = TrainingLogger(logs) if log is None else log
    if images is None and examples is not None:
        kind = SampleGrid if "latent" in examples and "label" not in examples else ImageGrid
        images = kind(log, examples, logs / "samples", network, image_interval, image_iterations)
    best = BestModelSaver(
        output / "models" / f"{name or 'model'}.pt", network, score, mode, metadata, val_smoothing
    )
    watching = {
        "guard": DivergenceGuard(flat_patience, checkpoint=models / "resume.pt"),
        "accuracy": AccuracyAverage(),
        "convergence": None if losses is None else Convergence(losses, stop=converged_stops),
    }
    side_by_side = None
    if progression is not None and images is not None:
        side_by_side = Progression(images, logs / "progression.png", progression)
    return HandlerGroup(
        **watching | dict(monitors or {}),
        log=log,
        images=images,
        progression=side_by_side,
        validation=Validation(evaluator, log, best, val_interval),
        best=best,
        budget=TimeLimit(cpu_minutes),
        resume=Resume(models, resume, resume_interval, resume_epochs, flush=[log.flush]),
        pretrained=Pretrained(pretrained, network) if pretrained else None,
        progress=ProgressBar(shown),
    )
