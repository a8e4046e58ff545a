"""Pages that show a finished table to people.

In: a table of `classify`, and the images of its rows. Out: one HTML file that opens from disk, without a network.
"""
