"""A run that is kept on the disk, and continued where it stopped.

In: rows as they are computed.
Out: a file or a directory of parts, with `.meta.json`.
"""
