"""Measures xception beside its peers on this machine, in one go: `python -m benchmarks`.

Contestants take turns, so that a machine that slows down slows all of them down, and every ratio is computed round by
round before it is summarised. All of it runs on the processor: GPUs are hidden from every contestant, ours included.

| part | measures |
| --- | --- |
| `model` | images/s of the network alone, beside Keras, OpenVINO and what the machine's matrix products would allow |
| `decode` | images/s from a file to pixels in one thread, beside Pillow, TensorFlow and libvips |
| `end-to-end` | whole processes, start-up included: a directory to a table of features, beside Keras and timm |
| `start` | seconds to the row of one image, and how many of them are not the import of TensorFlow |
| `listing` | seconds to list a directory of 200,000 files |
| `precision` | how far the features in lower precision are from those in float32 |
| `steady` | whether memory and speed stay the same over a long run (only when asked for) |
| `splits` | how threads for decoding and for the network share the cores (only when asked for) |

Peers that are not installed are said to be missing; `pip install -r benchmarks/requirements.txt` installs them.
"""
