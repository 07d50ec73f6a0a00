"""Fine-tuning: loads the weights of another training before the first iteration."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from common.errors import UserError
from common.inference.checkpoint import read_weights
from common.training.trainer import MultiStepTrainer

logger = logging.getLogger(__name__)
SHOWN_AT_MOST = 3
EMA = "_ema"


class Pretrained:
    """A handler that loads weights before the first iteration, see `load_pretrained`.

    Attach it after `common.training.checkpoint.Resume`: a run that was resumed keeps its own weights.

    Args:
        file: the weights.
        network: name of the network that a flat state_dict belongs to.
    """

    def __init__(self, file: str | os.PathLike[str], network: str = "G") -> None:
        self.file, self.network = file, network

    def attach(self, engine: MultiStepTrainer) -> None:
        """Loads the weights into the trainer's networks; logs one line."""
        if engine.state.iteration:
            logger.info(f"{self.file}: not read again, the run goes on with its own weights")
        else:
            logger.info(load_pretrained(engine.networks, self.file, self.network))


def load_pretrained(networks: Mapping[str, nn.Module], file: str | os.PathLike[str], network: str) -> str:
    """Copies the tensors of a file that have the name and shape of a network's own.

    A network's moving average ``NAME_ema`` gets the same weights as the network, unless the file has an
    average of its own. What does not fit keeps its random start.

    Args:
        networks: by name; changed in place.
        file: a flat state_dict of ``network`` (a trained or shipped ``model.pt``), a flat one of several
            networks with keys ``NAME.key``, or the ``resume.pt`` of a run.
        network: the generator's name.
    Returns:
        One line that says how much of each network was loaded, and what was not.
    Raises:
        UserError: the file is missing or holds no weights, or none of them fits ``network``.

    Example:
        >>> import tempfile, torch
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.save(nn.Linear(2, 3).state_dict(), f"{folder}/model.pt")
        ...     load_pretrained({"G": nn.Linear(4, 3)}, f"{folder}/model.pt", "G").partition(": ")[2]
        'G starts from 1 of its 2 tensors (not weight)'
    """
    states = _by_network(read_weights(file), network, networks, file)
    notes = []
    for name, target in networks.items():
        state = states.get(name) or states.get(name.removesuffix(EMA))
        if not state:
            continue
        own = target.state_dict()
        fitting = {key: value for key, value in state.items() if key in own and own[key].shape == value.shape}
        if name == network and not fitting:
            raise UserError(
                f"{file}: none of its weights fits network {name}; give weights of such a network, or change "
                "network_def"
            )
        target.load_state_dict(fitting, strict=False)
        if name.removesuffix(EMA) == name:
            left = _not_loaded({**own, **state}, fitting)
            notes.append(f"{name} starts from {len(fitting)} of its {len(own)} tensors{left}")
    unused = sorted({name.removesuffix(EMA) for name in states} - set(networks))
    return f"{file}: {', '.join([*notes, *(f'no network {name} here' for name in unused)])}"


def _by_network(
    content: Any, network: str, networks: Mapping[str, nn.Module], file: str | os.PathLike[str]
) -> dict[str, dict[str, Tensor]]:
    """Splits a file's content into state_dicts by the networks' names."""
    if isinstance(content, Mapping) and isinstance(content.get("networks"), Mapping):  # a resume file
        states = content["networks"].items()
        content = {f"{name}.{key}": value for name, state in states for key, value in state.items()}
    tensors = isinstance(content, Mapping) and all(isinstance(value, Tensor) for value in content.values())
    if not tensors or not content:
        raise UserError(f"{file}: holds no weights; give a model.pt or the resume.pt of a run")
    nested = any(key.startswith(f"{network}.") for key in networks[network].state_dict())
    if nested or not any(key.startswith(f"{network}.") for key in content):
        return {network: dict(content)}
    split: dict[str, dict[str, Tensor]] = {}
    for key, value in content.items():
        name, _, rest = key.partition(".")
        split.setdefault(name, {})[rest] = value
    return split


def _not_loaded(every: Mapping[str, Tensor], fitting: Mapping[str, Tensor]) -> str:
    names = [name for name in every if name not in fitting]
    more = f" and {len(names) - SHOWN_AT_MOST} more" if len(names) > SHOWN_AT_MOST else ""
    return f" (not {', '.join(names[:SHOWN_AT_MOST])}{more})" if names else ""
