from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from common.data.store.records import Job, content_hash, stamps
from common.data.store.request import Geometry, Intensity, Request


def job(path: str = "/data/a.nii.gz", **changes: object) -> Job:
    request = Request(Path(path), "image", Intensity())
    return Job(replace(request, **changes), Geometry(8))  # type: ignore[arg-type]


def test_names_tell_the_file_and_differ_with_the_settings() -> None:
    names = [
        job().name,
        job("/other/a.nii.gz").name,
        job(intensity=Intensity(upper=500)).name,
        job(intensity=Intensity("percentile", 1, 99)).name,
        job(orientation="rot90").name,
        job(kind="label").name,
        *(Job(job().request, geometry).name for geometry in (Geometry(9), Geometry(8, "sagittal"))),
        *(Job(job().request, Geometry(8, spacing=spacing)).name for spacing in (1.0, 1.5)),
        *(Job(job().request, Geometry(8, fit=fit)).name for fit in ("pad", "crop")),
    ]
    assert len(set(names)) == len(names)
    assert all(name.startswith(("a-image-", "a-label-")) for name in names)


def test_labels_do_not_mind_intensity_and_interpolation() -> None:
    request = Request(Path("/data/a.nii.gz"), "label", Intensity())
    bare = Job(Request(Path("/data/a.nii.gz"), "label"), Geometry(8, interpolation="linear"))
    assert Job(request, Geometry(8)).name == bare.name


def test_names_are_safe_and_of_bounded_length() -> None:
    name = job("/data/" + "ä b/"[:3] * 40 + ".nii.gz").name
    assert len(name) < 100 and name.isascii() and " " not in name


def test_stamps_of_what_is_not_there_are_empty(tmp_path: Path) -> None:
    assert stamps(tmp_path / "missing.nii") == []
    assert stamps(tmp_path / "missing.mhd") == []


def test_the_hash_is_of_content_and_parts(tmp_path: Path) -> None:
    (tmp_path / "a.nii").write_bytes(b"one")
    first = content_hash(tmp_path / "a.nii")
    (tmp_path / "a.nii").write_bytes(b"two")
    assert content_hash(tmp_path / "a.nii") != first
    series = tmp_path / "series"
    series.mkdir()
    for name, content in (("1.dcm", b"ab"), ("2.dcm", b"c")):
        (series / name).write_bytes(content)
    before = content_hash(series)
    (series / "1.dcm").write_bytes(b"a")
    (series / "2.dcm").write_bytes(b"bc")
    assert content_hash(series) != before


def test_how_planes_become_square_counts_only_without_a_spacing() -> None:
    mm = [Job(job().request, Geometry(8, spacing=1.0, fit=fit)).name for fit in ("pad", "stretch")]
    assert mm[0] == mm[1]  # where a spacing is given it decides
