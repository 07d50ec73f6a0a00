"""The latent explorer: an interactive map of a latent space as one HTML file that needs no network.

`Explorer` holds the points, thumbnails, decoder and atlas; `write_explorer` puts them, a page (``page/``) and
the plotting library into one file. It is independent of training and of CT.
"""
