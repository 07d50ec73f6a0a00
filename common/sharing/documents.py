"""Texts that speak of the repository's folders, for readers who have the bundle alone."""

from __future__ import annotations

import re


def in_the_download(text: str, name: str) -> str:
    """Commands for the download's own folder: ``bundles/NAME/configs/x.yaml`` becomes ``configs/x.yaml``.

    Code below ``bundles/NAME/`` keeps its place in the download, and so do the names of ``.py`` files.
    """
    return re.sub(rf"\bbundles/{re.escape(name)}/(?![\w/]*\.py\b)", "", text)


def comments_in_the_download(text: str, name: str) -> str:
    """The same for a config: in its comments alone."""
    lines = text.splitlines(keepends=True)
    return "".join(in_the_download(line, name) if line.lstrip().startswith("#") else line for line in lines)
