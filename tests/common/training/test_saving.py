from __future__ import annotations

import errno

import pytest
import torch

from common.training.saving import save_tensors


def test_equal_content_gives_equal_bytes_under_any_name(tmp_path):
    for name in ("one.pt", ".17.other.pt"):
        save_tensors({"weight": torch.arange(3.0)}, tmp_path / name)
    assert (tmp_path / "one.pt").read_bytes() == (tmp_path / ".17.other.pt").read_bytes()
    assert torch.load(tmp_path / "one.pt", weights_only=True)["weight"].tolist() == [0.0, 1.0, 2.0]


def test_a_limit_on_the_file_is_an_os_error(tmp_path):
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError) as caught:
            save_tensors({"weight": torch.zeros(100_000)}, tmp_path / "big.pt")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.errno == errno.EFBIG
