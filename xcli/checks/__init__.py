"""Finished tables compared with their sources.

In: finished tables, and sources.
Out: findings, or one merged table that is known to be complete.
"""
