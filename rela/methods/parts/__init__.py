"""What algorithms are made of: the optimizer LARS, queues of earlier batches, local crops.

In: tensors of a step. Out: updates, vectors, features. Begin with `vector_queue.py`.
"""
