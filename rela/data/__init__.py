"""Images on disk to batches of random views.

In: samples of a source (`rela.sources`). Out: FFCV betons, and uint8 views of them as batches.
Begin with `loader.py`; `beton/` writes and reads the files, `kernels/` is compiled code.
"""
