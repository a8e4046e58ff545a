"""From the bytes of image files to pixels.

In: the bytes of an image file.
Out: uint8[S, S, 3] RGB pixels, or an `ImageError` that says what is wrong.
"""
