"""A latent space one can walk in: from plain data to one HTML file that needs no network.

`Explorer` holds the points, thumbnails, decoder and atlas; `write_explorer` puts them, a page (``page/``) and
the plotting library into one file. Nothing here knows of networks that are trained or of CT.
"""
