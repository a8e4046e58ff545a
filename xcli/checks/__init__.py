"""Tables held against their sources.

In: finished tables, and sources.
Out: findings, or one merged table that is proven complete.
"""
