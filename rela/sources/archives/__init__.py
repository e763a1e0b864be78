"""Archives of images, read in place: nothing is extracted, links are not followed, names are no paths.

In: a zip or tar. Out: an `ImageSource`, names and places of its files. Begin with `image_archive.py`.
"""
