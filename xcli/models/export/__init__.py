"""Models for other programs: a format in each file, with how it is written and how its own runtime loads it.

In comes a traced pass of TensorFlow, out come the files of a directory; see `FORMATS` in `formats`.
"""
