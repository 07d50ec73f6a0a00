"""MetaImage files (MHD with its data beside, MHA): what ITK does not check of them."""

from __future__ import annotations

import math
import zlib
from pathlib import Path

from common.errors import UserError

META_SUFFIXES = (".mhd", ".mha")
CHUNK = 2**22
HEADER_BYTES = 65536


def check_meta_image(path: Path) -> None:
    """Missing bytes of an MHD's data file: ITK fills them with zeros in silence."""
    header = meta_header(path)
    if 0.0 in map(float, header.get("ElementSpacing", "").split()):
        raise UserError(f"{path}: its header gives a voxel size of 0 mm; write the true ElementSpacing there")
    if path.suffix.lower() != ".mhd":
        return
    data = path.parent / header.get("ElementDataFile", "")
    if header.get("ElementDataFile", "LOCAL").upper().startswith(("LOCAL", "LIST")) or "%" in data.name:
        return
    if not data.is_file():
        raise UserError(f"{path}: its data file {data.name} is missing; put it beside the header")
    expected = int(header.get("CompressedDataSize", "0")) if _compressed(header) else _raw_bytes(header)
    if data.stat().st_size < expected:
        raise ValueError(f"its data file {data.name} has {data.stat().st_size} of {expected} bytes")
    if _compressed(header):
        _check_compressed(data)


def meta_data_files(path: Path) -> list[Path]:
    """The files that hold an MHD's voxels: one, or where it lists several or gives a pattern, all of them."""
    name = meta_header(path).get("ElementDataFile", "LOCAL")
    if name.upper().startswith("LIST"):
        return [path.parent / line.strip() for line in _lines(path) if line.strip() and "=" not in line]
    if "%" in name:  # "slice%03d.raw 1 90 1"
        pattern = name.split()[0]
        return sorted(path.parent.glob(f"{pattern.partition('%')[0]}*{Path(pattern).suffix}"))
    return [] if name.upper() == "LOCAL" else [path.parent / name]


def _check_compressed(data: Path) -> None:
    """Decompresses to the checksum: ITK fills what it cannot decompress with whatever is in memory."""
    stream = zlib.decompressobj(zlib.MAX_WBITS | 32)  # 32: zlib's or gzip's header
    with data.open("rb") as file:
        while chunk := file.read(CHUNK):
            stream.decompress(chunk)
    if not stream.eof:
        raise ValueError(f"its data file {data.name} ends early")


def meta_header(path: Path) -> dict[str, str]:
    """The ``Key = value`` lines of a MetaImage file, up to the one that says where its voxels are."""
    header: dict[str, str] = {}
    for line in _lines(path):
        key, equals, value = line.partition("=")
        if equals and "ElementDataFile" not in header:
            header[key.strip()] = value.strip()
    return header


def _lines(path: Path) -> list[str]:
    with path.open("rb") as file:
        return file.read(HEADER_BYTES).decode("latin-1").splitlines()


def _compressed(header: dict[str, str]) -> bool:
    return header.get("CompressedData", "False").lower() == "true"


_ELEMENT_BYTES = {"CHAR": 1, "SHORT": 2, "INT": 4, "LONG": 4, "FLOAT": 4, "DOUBLE": 8}


def _raw_bytes(header: dict[str, str]) -> int:
    kind = header.get("ElementType", "").removeprefix("MET_").removeprefix("U")
    if kind not in _ELEMENT_BYTES:
        return 0
    return math.prod(int(extent) for extent in header.get("DimSize", "0").split()) * _ELEMENT_BYTES[kind]
