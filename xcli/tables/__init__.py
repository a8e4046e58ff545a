"""Rows and the file formats that hold them.

In: Arrow record batches.
Out: CSV, JSONL, Parquet and NPY files, which are also read back.
"""
