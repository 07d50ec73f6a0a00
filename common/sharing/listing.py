"""What a folder of zips has, for people (``SHA256SUMS``) and for MONAI (``models/model_info.json``)."""

from __future__ import annotations

from pathlib import Path

from common.files import atomic_write, read_json, write_json
from common.sharing.weights import sha256

SUMS, INFO = "SHA256SUMS", Path("models", "model_info.json")


def update_listing(folder: Path, url: str | None) -> None:
    """Lists every zip of ``folder``.

    ``model_info.json`` is what `monai.bundle.get_all_bundles_list` and its kin read: ``NAME_vVERSION`` ->
    ``source`` (the address) and ``checksum`` (here SHA-256). ``SHA256SUMS`` is for ``sha256sum --check``.

    Args:
        url: of the folder; earlier entries keep theirs without one, new ones get the file's name alone.
    """
    zips = sorted(folder.glob("*_v*.zip"))
    sums = {path.name: sha256(path) for path in zips}
    with atomic_write(folder / SUMS) as temporary:
        temporary.write_text("".join(f"{value}  {name}\n" for name, value in sums.items()))
    earlier = read_json(folder / INFO) if (folder / INFO).is_file() else {}
    entries = {}
    for path in zips:
        known = earlier.get(path.stem, {}).get("source", path.name)
        source = f"{url}/{path.name}" if url else known
        entries[path.stem] = {"checksum": sums[path.name], "source": source}
    write_json(folder / INFO, entries)
