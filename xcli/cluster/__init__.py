"""`--runner ray`: one run over many machines.

In: a listing.
Out: the same directory of parts that one machine writes.
"""
