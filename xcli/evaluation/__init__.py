"""Labelled images to figures and pictures.

In: images with classes, and a model.
Out: accuracies, tables by class, plots.
"""
