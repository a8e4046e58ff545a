"""Eight bits: what of a network is computed with integers, found on images of the user, and what that loses.

In: a loaded model and images of the listing. Out: a `Quantization`, which the OpenVINO engine puts into its graph.
"""
