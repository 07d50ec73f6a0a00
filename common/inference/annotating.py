"""Generated label maps back to the voxels and the values of the file they were made for."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

import numpy as np
from torch import Tensor

from common.data.store.planes import Frame
from common.data.store.volume import StoredVolume
from common.data.structures import MMWHS_VALUES, STRUCTURES, WHOLE_HEART
from common.inference.labels import Converted

ORDER = {name: value for value, name in enumerate(STRUCTURES, start=1)}


def map_plane(prediction: Tensor, volume: StoredVolume) -> np.ndarray:
    """The class of each pixel of the source's plane (h, w), uint8, from logits behind an image (2 + K, S, S).

    The probabilities are brought to the plane's size, linearly, and the likeliest class is taken there: so
    borders are as smooth as the network drew them. Beyond the crop is background.
    """
    frame = Frame.of(volume.geometry, volume.shape, volume.spacing)
    shares = prediction[1:].float().softmax(dim=0).cpu().numpy()  # (K + 1, S, S)
    planes = [frame.image_back(share, 1.0 if k == 0 else 0.0) for k, share in enumerate(shares)]
    return np.argmax(planes, axis=0).astype(np.uint8)


def given_plane(label: np.ndarray, volume: StoredVolume) -> np.ndarray:
    """A class map (S, S) as the source's plane (h, w), nearest pixel."""
    return Frame.of(volume.geometry, volume.shape, volume.spacing).label_back(label, 0)


def values_of_classes(
    file: Converted, classes: Sequence[str], others: Sequence[Converted] = ()
) -> np.ndarray:
    """What each class is called in the file's own values: uint16 (K + 1,), 0 for background.

    A structure that the file does not have takes the value it has in the first of ``others`` that has it,
    else that of the convention the file follows: 1..7 in `STRUCTURES`' order, or MM-WHS's. ``whole_heart``,
    where it stands for several of the file's values, takes the first number that the file does not use.
    """
    values = np.zeros(len(classes) + 1, np.uint16)
    convention = MMWHS_VALUES if not _counts_through(file, classes) else ORDER
    free = next(n for n in count(1) if n not in file.condition.values)
    for index, name in enumerate(classes, start=1):
        if name == WHOLE_HEART:
            own = _values(file, index)
            values[index] = own[0] if len(own) == 1 else free
        else:
            known = (value for each in (file, *others) for value in _values(each, index))
            values[index] = next(known, convention[name])
    return values


def _values(file: Converted, index: int) -> list[int]:
    """The file's values that mean class ``index``."""
    return [int(file.condition.values[code]) for code in np.flatnonzero(np.asarray(file.table) == index)]


def _counts_through(file: Converted, classes: Sequence[str]) -> bool:
    """Whether the file's values are 1..7 in `STRUCTURES`' order, as far as it has them."""
    found = [(name, _values(file, index)) for index, name in enumerate(classes, start=1)]
    return all(values == [ORDER[name]] for name, values in found if values and name in ORDER)
