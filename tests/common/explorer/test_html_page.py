"""The page as one file."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import monai.bundle
import pytest
from plotly.offline import get_plotlyjs

from common.errors import UserError
from common.explorer import html_page as writing
from common.explorer.data import pack
from common.explorer.html_page import PAGE, explore, page, write_explorer
from tests.common.explorer.made import made_explorer


def without_library(text: str) -> str:
    return text.replace(get_plotlyjs(), "")


def test_the_file_is_written_whole(tmp_path: Path) -> None:
    written = write_explorer(tmp_path / "new" / "explorer.html", made_explorer())
    assert written == tmp_path / "new" / "explorer.html"
    text = written.read_text(encoding="utf-8")
    assert text.startswith("<!DOCTYPE html>")
    assert text.endswith("</html>\n")
    assert get_plotlyjs() in text
    assert [path.name for path in written.parent.iterdir()] == ["explorer.html"]


def test_nothing_is_fetched() -> None:
    text = without_library(page(pack(made_explorer())))
    assert re.findall(r"""(?:src|href)\s*=\s*["'](?!data:)""", text) == []
    sources = [text, *(script.read_text() for script in PAGE.glob("*.js"))]
    loading = r"https?://(?!www\.w3\.org/2000/svg)|fetch\(|XMLHttpRequest|@import"
    assert not [found for source in sources for found in re.findall(loading, source)]
    assert "default-src 'none'" in text


def test_texts_cannot_end_their_element() -> None:
    names = ["</script><script>alert(1)</script>", "<!--", "third"]
    text = without_library(page(pack(made_explorer(names=names, title="<b>&</b>"))))
    assert "alert(1)</script>" not in text
    assert "<title>&lt;b&gt;&amp;&lt;/b&gt;</title>" in text
    description = re.search(r'<script type="application/json" id="description">(.*?)</script>', text, re.S)
    assert description is not None
    assert json.loads(description[1])["names"] == names


def test_every_module_that_is_imported_is_there() -> None:
    scripts = {f"explorer/{path.name}": path.read_text() for path in PAGE.glob("*.js")}
    text = without_library(page(pack(made_explorer())))
    imported = {
        name for source in (text, *scripts.values()) for name in re.findall(r'"(explorer/\w+\.js)";', source)
    }
    assert imported == set(scripts)  # and none is there for nothing


def test_too_large_a_file_says_what_is_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "LARGEST_FILE", 1_000_000)
    with pytest.raises(UserError, match=r"explorer\.html: would have .* MB \(decoder 0\.0 MB, thumbnails"):
        write_explorer(tmp_path / "explorer.html", made_explorer())
    assert list(tmp_path.iterdir()) == []


def luminance(colour: str) -> float:
    """WCAG's relative luminance of #rrggbb."""
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: str, second: str) -> float:
    """WCAG's contrast ratio."""
    high, low = sorted((luminance(first), luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_texts_and_marks_are_readable() -> None:
    colours = dict(re.findall(r"--(\S+): (#[0-9a-f]{6});", (PAGE / "style.css").read_text()))
    for ground in (colours["paper"], colours["ground"], colours["soft"]):
        for text in ("ink", "muted", "accent"):
            assert contrast(colours[text], ground) >= 4.5, (text, ground)
    for badge in ("end-a", "end-b", "accent"):
        assert contrast(colours[badge], "#ffffff") >= 4.5
    marks = re.findall(r'colour: "(#[0-9a-f]{6})"', (PAGE / "drawing.js").read_text())
    assert len(set(marks)) == 6
    assert all(contrast(mark, "#ffffff") >= 3 for mark in marks)


def test_settings_get_their_types(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "configs" / "explore.yaml"
    config.parent.mkdir()
    config.touch()
    seen: dict[str, Any] = {}
    monkeypatch.setattr(monai.bundle, "run", lambda **given: seen.update(given))
    settings = {"seed": "3", "plane_seeds": "1,2,3", "output": "a.html", "plane_class": "null"}
    explore(tmp_path, settings)
    overrides = {"seed": 3, "plane_seeds": "1,2,3", "output": "a.html", "plane_class": None}
    assert seen == {"run_id": "explorer", "config_file": str(config), **overrides}


def test_a_folder_without_an_explorer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such config; --bundle takes the folder of a bundle"):
        explore(tmp_path, {})
