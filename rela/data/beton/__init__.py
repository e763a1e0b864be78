"""FFCV's beton format: many images in one file.

In: samples of a source. Out: a checked beton file, opened as a `Beton`.
Begin with `reader.py` for the structure of a beton, `writer.py` for how it is written.
"""
