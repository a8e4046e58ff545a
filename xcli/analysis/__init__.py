"""What becomes of finished tables: compared with each other, and their files sorted into folders. No TensorFlow.

In: tables of `classify` and `features`.
Out: differences and figures; folders with files, and the log that takes them back.
"""
