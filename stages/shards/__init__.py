"""Shards in a store, which are read one after another.

In: a URL. Out: a result in parts, one for each shard, or a source of all their images. Begin with `parts.py`.
"""
