"""`rela neighbors`: similar images, near-duplicates and outliers, by cached representations.

In: representations of a data set, and an image for its neighbours. Out: images with similarities, and a
picture of them. Begin with `neighbors.py`.
"""
