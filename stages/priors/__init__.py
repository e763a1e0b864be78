"""Which prior a name means, and which of its representations are cached.

In: names from the command line. Out: prior requests, identities, cached representations, rankings.
Begin with `requests.py`.
"""
