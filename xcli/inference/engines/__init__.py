"""What computes batches of pixels: TensorFlow, on every device, and OpenVINO, on processors.

In: the forward pass of a loaded model. Out: arrays for each batch, the same within the precision with either engine.
"""
