"""Files and object stores, to read and to write.

In: paths and URLs.
Out: bytes, and files or objects that appear whole or not at all.
"""
