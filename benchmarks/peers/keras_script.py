"""Features of a directory of images with Keras alone: python -m benchmarks.peers.keras_script DIRECTORY WEIGHTS OUT."""

from __future__ import annotations

import sys

import keras

from benchmarks.peers.tables import write


def main(directory: str, weights: str, out: str) -> None:
    """Reads, computes, writes."""
    images = keras.utils.image_dataset_from_directory(
        directory, labels=None, image_size=(299, 299), batch_size=32, shuffle=False, verbose=False
    )
    names = images.file_paths
    model = keras.applications.Xception(include_top=False, weights=weights, pooling="avg", input_shape=(299, 299, 3))
    batches = images.map(keras.applications.xception.preprocess_input).prefetch(2)
    write(out, names, model.predict(batches, verbose=0))


if __name__ == "__main__":
    main(*sys.argv[1:])
