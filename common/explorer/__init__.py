"""A latent space one can walk in: from plain data to one HTML file that needs no network.

`Explorer` holds the points, thumbnails, decoder and atlas; `write_explorer` puts them, a page (``page/``) and
the plotting library into one file. Nothing here knows of networks that are trained or of CT.
"""

from __future__ import annotations

from common.explorer.data import Atlas, Explorer
from common.explorer.decoding import decode
from common.explorer.layers import DenseLayer, dense_layers
from common.explorer.writing import write_explorer

__all__ = ["Atlas", "DenseLayer", "Explorer", "decode", "dense_layers", "write_explorer"]
