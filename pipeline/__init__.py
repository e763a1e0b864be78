"""What any staged job needs: fingerprints, manifests, atomic publishing, parts, cost records.

Nothing here knows about images or models, and nothing here imports more than the standard library.
"""
