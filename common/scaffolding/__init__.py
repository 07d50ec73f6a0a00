"""A new bundle to begin from: `new_bundle` writes it, ``template/`` holds what is its own."""

from __future__ import annotations

from common.scaffolding.new_bundle import new_bundle

__all__ = ["new_bundle"]
