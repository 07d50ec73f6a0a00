"""An entry of a config's list of handlers."""

from __future__ import annotations

from typing import TypeVar

Handler = TypeVar("Handler")


def listed(handler: Handler) -> Handler:
    """Gives back ``handler``, which the config defines under a name of its own because others refer to it.

    MONAI's check of a bundle's properties asks every entry of ``train#handlers`` for its ``_target_``, and
    its experiment tracking appends to that list: so it is a list of components, not of references.
    """
    return handler
