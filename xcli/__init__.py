"""Placeholder; the public names come with the model."""

__version__ = "0.1.0"
