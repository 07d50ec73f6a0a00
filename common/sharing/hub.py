"""A built bundle to the Hugging Face Hub."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

from monai.bundle import push_to_hf_hub
from monai.utils import OptionalImportError

from common.errors import UserError
from common.sharing.weights import LISTED


def push(repository: str, name: str, archive: Path) -> str:
    """Sends what ``archive`` holds, and the files that were too large for it, as a private repository.

    The version becomes a tag. The client takes the token of ``huggingface-cli login`` or of ``HF_TOKEN``.

    Args:
        repository: ``OWNER/NAME`` on the hub.
    Returns:
        The address.
    Raises:
        UserError: no such form of repository, or the client is not installed.
    """
    if repository.count("/") != 1:
        raise UserError(f"--push_to_hub {repository}: write OWNER/NAME")
    with TemporaryDirectory() as folder:
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(folder)
        unpacked = Path(folder, name)
        large = archive.with_suffix("")
        if large.is_dir():  # the hub takes files of any size
            shutil.copytree(large, unpacked, dirs_exist_ok=True)
            (unpacked / LISTED).unlink(missing_ok=True)
        version = archive.stem.rpartition("_v")[2]
        try:
            return str(push_to_hf_hub(repo=repository, name=name, bundle_dir=folder, version=version))
        except OptionalImportError as error:
            raise UserError("--push_to_hub needs the hub's client: pip install huggingface_hub") from error
