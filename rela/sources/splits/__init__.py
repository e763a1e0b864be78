"""A tree of folders and files → train and val, with the class of every image.

In: the names in a folder or an archive. Out: an `ImageSource`. Begin with `layout.py`, which tells splits and
classes from names; `tree.py` has folders of a disk and of an archive in one form, `label_lists.py` and
`metadata.py` read labels that lie beside images, `held_out.py` cuts a validation split where there is none.
"""
