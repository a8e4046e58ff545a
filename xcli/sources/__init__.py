"""From the arguments of a command to an ordered, lazy listing of images.

In: directories, globs, lists, manifests, archives, buckets.
Out: `ImageRef`s in a fixed order, and counts of what was skipped.
"""
