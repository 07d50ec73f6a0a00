"""MHD, MHA and NRRD files: decoded by MONAI's ITKReader, behind checks for what ITK reads in silence.

ITK fills missing bytes with zeros and what it cannot decompress with whatever is in memory, and it takes a
voxel size of 0 mm.
"""

from __future__ import annotations

import math
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from common.data.dicom_io import ITK_LOCK, DecodedVolume
from common.data.samples import META_SUFFIXES, has_suffix
from common.errors import UserError

META_FIELDS = ("NDims", "DimSize", "ElementType", "ElementDataFile")
SPACING_FIELDS = ("ElementSpacing", "spacings", "space directions")
ELEMENT_BYTES = {"CHAR": 1, "SHORT": 2, "INT": 4, "LONG": 4, "FLOAT": 4, "DOUBLE": 8}
HEADER_BYTES = 65536
CHUNK = 2**22


def read_itk(path: Path) -> DecodedVolume:
    """Reads an MHD, MHA or NRRD file.

    Raises:
        UserError, ValueError: damaged, cut short, several values in a voxel, or without its data file.
    """
    import itk
    from monai.data.image_reader import ITKReader
    from monai.data.utils import to_affine_nd

    if has_suffix(path, META_SUFFIXES):
        _check_meta_image(path)
    with ITK_LOCK:
        itk.ProcessObject.SetGlobalWarningDisplay(False)
        reader = ITKReader(imageio=_header_reader(path))
        array, meta = reader.get_data(reader.read(path))
    affine = np.asarray(to_affine_nd(3, meta["affine"]), dtype=np.float64)  # a 2-D file's is 3 x 3
    return DecodedVolume(
        np.asarray(array), affine, any(name in header_fields(path) for name in SPACING_FIELDS)
    )


def itk_geometry(path: Path) -> tuple[tuple[int, int, int], np.ndarray]:
    """(X, Y, Z) extent and affine to world mm (RAS) of a file, from its header alone."""
    with ITK_LOCK:
        header = _header_reader(path)
        axes = header.GetNumberOfDimensions()
        extent = [header.GetDimensions(axis) for axis in range(axes)]
        columns = [np.multiply(header.GetDirection(axis), header.GetSpacing(axis)) for axis in range(axes)]
        origin = [header.GetOrigin(axis) for axis in range(axes)]
    affine = np.eye(4)
    for axis, column in enumerate(columns[:3]):
        affine[: min(axes, 3), axis] = column[:3]
    affine[: min(axes, 3), 3] = origin[:3]
    x, y, z = (*extent, 1, 1)[:3]
    return (int(x), int(y), int(z)), np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine  # LPS to RAS


def data_files(path: Path) -> list[Path]:
    """The files with the voxels of an MHD or NHDR: one, or all that it lists or gives a pattern of."""
    header = header_fields(path)
    name = header.get("ElementDataFile") or header.get("data file") or header.get("datafile") or "LOCAL"
    if name.upper().startswith("LIST"):
        listed = (line.strip() for line in _lines(path))
        return [path.parent / line for line in listed if line and not re.search("[=:]|^#|^NRRD", line)]
    if "%" in name:  # "slice%03d.raw 1 90 1"
        pattern = name.split()[0]
        return sorted(path.parent.glob(f"{pattern.partition('%')[0]}*{Path(pattern).suffix}"))
    return [] if name.upper() == "LOCAL" else [path.parent / name]


def header_fields(path: Path) -> dict[str, str]:
    """The ``Key = value`` lines of a MetaImage header, or the ``key: value`` lines of a NRRD header."""
    header: dict[str, str] = {}
    meta = has_suffix(path, META_SUFFIXES)
    for line in _lines(path):
        key, separator, value = line.partition("=" if meta else ": ")
        if not meta and not line:  # the voxels begin
            break
        if separator and "ElementDataFile" not in header:
            header[key.strip()] = value.strip()
    return header


def _header_reader(path: Path) -> Any:
    """ITK's reader of a file, with its header read. By its suffix ITK would not know ``.MHD`` in capitals."""
    import itk

    if has_suffix(path, META_SUFFIXES):
        missing = [name for name in META_FIELDS if name not in header_fields(path)]
        if missing:  # ITK would write several lines to the terminal before it fails
            raise ValueError(f"its header has no {', '.join(missing)}")
    reader = itk.MetaImageIO.New() if has_suffix(path, META_SUFFIXES) else itk.NrrdImageIO.New()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    if reader.GetNumberOfComponents() != 1:
        raise UserError(
            f"{path}: holds {reader.GetNumberOfComponents()} values in each voxel (colours, or segments that "
            "overlap); save one gray value or label (3D Slicer: export the segments as a label map)"
        )
    return reader


def _check_meta_image(path: Path) -> None:
    """Refuses an MHD or MHA with missing or damaged voxels, or a voxel size of 0 mm."""
    header = header_fields(path)
    if 0.0 in map(float, header.get("ElementSpacing", "").split()):
        raise UserError(f"{path}: its header gives a voxel size of 0 mm; write the true ElementSpacing there")
    name = header.get("ElementDataFile", "LOCAL")
    if name.upper().startswith("LIST") or "%" in name:
        return
    data, start = (path, _voxels_start(path)) if name.upper() == "LOCAL" else (path.parent / name, 0)
    if not data.is_file():
        raise UserError(f"{path}: its data file {data.name} is missing; put it beside the header")
    compressed = header.get("CompressedData", "False").lower() == "true"
    expected = int(header.get("CompressedDataSize", "0")) if compressed else _raw_bytes(header)
    if data.stat().st_size - start < expected:
        raise ValueError(f"{data.name} holds {data.stat().st_size - start} of {expected} bytes of voxels")
    if compressed:
        _check_compressed(data, start)


def _voxels_start(path: Path) -> int:
    """The first byte after the line of an MHA's header that says that its voxels follow."""
    with path.open("rb") as file:
        content = file.read(HEADER_BYTES)
    return content.find(b"\n", content.find(b"ElementDataFile")) + 1


def _check_compressed(data: Path, start: int) -> None:
    """Decompresses to the checksum."""
    stream = zlib.decompressobj(zlib.MAX_WBITS | 32)  # 32: zlib's or gzip's header
    with data.open("rb") as file:
        file.seek(start)
        while chunk := file.read(CHUNK):
            stream.decompress(chunk)
    if not stream.eof:
        raise ValueError(f"{data.name} ends early")


def _raw_bytes(header: dict[str, str]) -> int:
    kind = header.get("ElementType", "").removeprefix("MET_").removeprefix("U")
    if kind not in ELEMENT_BYTES:
        return 0
    return math.prod(int(extent) for extent in header.get("DimSize", "0").split()) * ELEMENT_BYTES[kind]


def _lines(path: Path) -> list[str]:
    with path.open("rb") as file:
        return file.read(HEADER_BYTES).decode("latin-1").splitlines()
