"""What computes batches of pixels: TensorFlow, on every device, and OpenVINO, on processors.

In: the forward pass of a loaded model. Out: arrays for each batch, the same whichever engine computes them, within the
precision.
"""

from __future__ import annotations

ENGINES = AUTO, TENSORFLOW, OPENVINO = "auto", "tensorflow", "openvino"
