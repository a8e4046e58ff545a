"""The network and its weights.

In: a `ModelSpec`: names or paths of weights, bundles and `.keras` files.
Out: a `LoadedModel`: the folded forward pass, its labels and its preprocessing.
"""
