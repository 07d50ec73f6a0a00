"""The report's page: what is on it, that nothing is loaded, that it repeats."""

from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from common.errors import UserError
from common.metrics.bootstrap import Value
from common.trust.report import (
    HIGHER,
    LOWER,
    Figure,
    Line,
    Picture,
    Plot,
    Report,
    Section,
    number,
    page,
    svg,
    write_report,
)

NAN = math.nan
PNG = (
    b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x00\x00\x00\x00:~\x9bU"
    b"\x00\x00\x00\nIDATx\x9cc`\x00\x00\x00\x02\x00\x01H\xaf\xa4q\x00\x00\x00\x00IEND\xaeB`\x82"
)


def made_report(gate: dict[str, object] | None = None) -> Report:
    """A report with one of everything, NaN and marks that HTML would take for its own."""
    few = Value(0.3, NAN, NAN, 40, 2)
    figures = [
        Figure(
            "fid_randvgg",
            Value(2.6, 2.1, 3.4, 40, 12),
            LOWER,
            {"real_real": few},
            "rv",
            7,
        ),
        Figure("dice", Value(NAN, NAN, NAN, 0), HIGHER, {"none": Value(0, 0, 0, 40)}, note="<&>"),
    ]
    plots = [
        Plot(
            "Curve", "x", "y", [Line("a", [0, 1], [1, math.nan], [0, 0], [2, 2]), Line("b", [0, 1], [2, 1])]
        ),
        Plot("Steps", "x", "y", [Line("a", [0, 1, 2], [0.5, 0.5])], kind="steps"),
    ]
    section = Section(
        "fidelity",
        "Fidelity",
        "Near <real>.",
        figures,
        plots,
        [Picture("Worst", "two", PNG)],
        ["few images"],
        {"listed": [{"image": f"i{k}", "n": k} for k in range(12)], "flag": True, "odd": math.inf},
    )
    sets = {
        "real": {"images": 80, "patients": 8, "source": "DATA", "labelled": True},
        "synthetic": {"images": 40, "patients": 0, "source": "OUT", "labelled": False},
    }
    return Report("dcgan_covid", {"commit": "abc123", "seed": "7"}, sets, [section], gate)


class Tags(HTMLParser):
    """All tags with what they point at, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_every_figure_is_there_with_all_that_is_needed_to_read_it() -> None:
    text = page(made_report({"verdict": "open", "reason": "no copies"}))
    found = Tags(text)
    words = " ".join(" ".join(found.words).split())
    assert "fid_randvgg 2.6 [2.1, 3.4] 0.3 [–] – 40 12 lower is better rv 7" in words
    assert "<&>" in words and "Near <real>." in words and "Near <real>" not in text
    assert "Release gate open" in words and "no copies" in words
    assert "abc123" in words and "i9" in words and "i10" not in words and "and 2 more" in words
    assert found.tags.count("svg") == 2 and "few images" in words
    assert "not asked for" in page(made_report())


def test_nothing_is_loaded_and_nothing_runs() -> None:
    text = page(made_report())
    found = Tags(text)
    assert not {"script", "link", "iframe", "object"} & set(found.tags)
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in found.links)
    assert "url(http" not in text and "@import" not in text


def test_the_same_report_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = (write_report(tmp_path / name / "r.html", made_report()) for name in "ab")
    assert first.read_bytes() == second.read_bytes()
    assert not re.search(r"\b20\d\d-\d\d-\d\d\b", first.read_text())
    found = json.loads((tmp_path / "a" / "trust.json").read_text())
    figures = found["sections"]["fidelity"]["figures"]
    assert figures[0]["mean"] == 2.6 and figures[0]["baselines"]["real_real"]["interval"] is None
    assert figures[0]["interval"] == [2.1, 3.4] and figures[0]["patients"] == 12
    assert figures[1]["mean"] is None and found["sections"]["fidelity"]["plots"][0]["lines"][0]["y"] == [
        1,
        None,
    ]
    assert found["sets"]["real"] == {"images": 80, "patients": 8, "source": "DATA", "labelled": True}
    assert found["gate"] is None and found["seed"] == "7"


def test_only_an_html_file_is_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"report\.html"):
        write_report(tmp_path / "report.pdf", made_report())
    assert not list(tmp_path.iterdir())


def test_diagrams_tell_lines_apart_without_colour() -> None:
    lines = [Line(name, [0, 1], [k, k]) for k, name in enumerate("abc")]
    text = svg(Plot("t", "x", "y", lines))
    assert text.startswith("<svg") and "<metadata" not in text and "width=" not in text.split(">")[0]
    assert len(set(re.findall(r"stroke-dasharray: [^;]*", text))) >= 2
    assert all(f">{name}<" in text for name in ("a", "b", "c", "x", "y"))


def test_numbers_have_three_digits() -> None:
    values = (-0.5, 12345.6, 0.00042, 0.0, math.nan)
    assert [number(value) for value in values] == ["\u22120.5", "12346", "0.00042", "0", "–"]
