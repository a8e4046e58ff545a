"""`finetune`: from labelled images to a bundle.

In: images with classes, and a base model.
Out: a directory with the model, its labels, figures and history.
"""
