"""The slice store: volumes are converted once into arrays of slices, which are then served at memory speed.

Each source file becomes one plain ``.npy`` array (slices, S, S) and one small JSON record beside it. Plain
arrays, because a slice is then one contiguous chunk: serving it is one read at a known offset into a buffer
that is used again, without a decoder. Formats of compressed chunks (zarr, HDF5) were left out: decoding a
chunk costs several times what reading it does, and the disk they save is small once slices are resized and
kept as 16 or 8 bits. The system's page cache holds what is read often and shares it between loader
workers and ranks, so no process holds volumes of its own. ``np.load(path, mmap_mode="r")`` opens the
arrays anywhere, and deleting the folder is safe at any time: what is missing is converted again.
"""
