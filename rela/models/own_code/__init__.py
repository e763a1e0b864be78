"""Networks that neither torchvision nor timm has: given from Python, or by installed packages.

In: an nn.Module, a function that makes one, or an entry point. Out: a name that `--prior` and `--model`
take. Begin with `networks.py`.
"""
