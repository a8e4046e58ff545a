"""Tests of `xcli.analysis`."""
