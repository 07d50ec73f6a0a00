from __future__ import annotations

import pytest
import torch

from common.errors import UserError
from common.networks.encoding import ClassEncoding

LABEL = torch.tensor([[0.0, 1.0], [3.0, 4.0]]).view(1, 1, 2, 2)


def test_index_is_one_channel_up_to_1() -> None:
    encoding = ClassEncoding(4, "index")
    assert encoding.channels == 1
    assert encoding(LABEL).flatten().tolist() == [0, 0.25, 0.75, 1]


def test_onehot_has_a_channel_for_each_class_and_none_for_the_background() -> None:
    encoding = ClassEncoding(4, "onehot")
    out = encoding(LABEL)
    assert encoding.channels == 4 and out.dtype == LABEL.dtype
    assert out[0].flatten(1).tolist() == [[0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]


def test_an_image_passes() -> None:
    encoding = ClassEncoding(4, "image")
    assert encoding.channels == 1 and encoding(LABEL) is LABEL


@pytest.mark.parametrize("kind", ["index", "onehot", "image"])
def test_it_can_be_scripted(kind: str) -> None:
    encoding = ClassEncoding(4, kind)
    assert torch.equal(torch.jit.script(encoding)(LABEL), encoding(LABEL))


def test_an_unknown_encoding_is_refused() -> None:
    with pytest.raises(UserError, match="'one-hot' is unknown; choose one of index, onehot, image"):
        ClassEncoding(4, "one-hot")
    with pytest.raises(UserError, match="0 classes"):
        ClassEncoding(0)
