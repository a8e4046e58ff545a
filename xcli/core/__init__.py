"""What every other room may use: errors and exit codes, the records that pass from stage to stage, texts, signals.

In: nothing.
Out: exceptions, plain values, and TensorFlow through the one module that imports it.
"""
