"""What any staged job needs: fingerprints, manifests, atomic publishing, parts, locks, processes.

In: the meaning of a result, and a function that fills a directory. Out: a published artifact.
Begin with `artifact.py`. Nothing here knows images or models; it imports only the standard library.
"""

from collections.abc import Callable

Say = Callable[[str], None]  # receives a line for the user
