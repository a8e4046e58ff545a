"""What every other room may use: errors and exit codes, records that pass between stages, text, signals, TensorFlow.

In: nothing.
Out: exceptions, plain values, and TensorFlow through the one module that imports it.
"""
