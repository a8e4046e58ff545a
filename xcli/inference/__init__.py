"""From references to images to rows.

In: `ImageRef`s and a `LoadedModel`.
Out: Arrow record batches, one row an image, in the order of the references.
"""
