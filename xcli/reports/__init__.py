"""Pages that show a finished table to people.

In: a table of `classify`, or two tables of one command to compare, and the images of their rows. Out: one HTML file
that opens from disk, without a network.
"""
