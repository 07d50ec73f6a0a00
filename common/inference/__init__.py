"""Use of trained generators: loading models, data sets of conditions, sampling and writing of images."""
