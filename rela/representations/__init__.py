"""Features of images by a prior, and training targets from features.

In: a beton and a prior. Out: an HDF5 matrix of features, and targets made from it by PCA.
Begin with `embedder.py`, then `matrix_file.py` and `projection.py`.
"""
