"""The engine room shared by all bundles. It imports no bundle."""

from __future__ import annotations

from common.downloads import install_finder

install_finder()
