"""A head on a frozen Xception with Keras alone, as tutorials do it: every image through the backbone in every epoch.

    python -m benchmarks.peers.keras_finetune DATA WEIGHTS OUT.json [EPOCHS]

DATA has `train/` and `validation/` with class folders. OUT.json gets, for each epoch, the seconds since the start of
the process's work and the validation accuracy, so that times to the same accuracy can be compared with
`xception finetune DATA -o RUN --unfreeze none --views 1 --weights WEIGHTS`.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import keras

SIZE, BATCH = 299, 32


def images(folder: Path, shuffle: bool) -> tuple[object, int]:
    """Batches of images scaled to [-1, 1] with their classes, and the number of classes."""
    found = keras.utils.image_dataset_from_directory(
        folder,
        label_mode="categorical",
        image_size=(SIZE, SIZE),
        batch_size=BATCH,
        shuffle=shuffle,
        seed=0,
        verbose=False,
    )
    classes = len(found.class_names)
    return found.map(lambda x, y: (keras.applications.xception.preprocess_input(x), y)).prefetch(2), classes


def main(data: str, weights: str, out: str, epochs: str = "5") -> None:
    """Trains, and writes the course after every epoch."""
    begin = time.monotonic()
    keras.utils.set_random_seed(0)
    train, classes = images(Path(data, "train"), shuffle=True)
    validation, _ = images(Path(data, "validation"), shuffle=False)
    backbone = keras.applications.Xception(
        include_top=False, weights=weights, pooling="avg", input_shape=(SIZE, SIZE, 3)
    )
    backbone.trainable = False
    image = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Dropout(0.3)(backbone(image, training=False))
    model = keras.Model(image, keras.layers.Dense(classes, activation="softmax")(x))
    # XLA is slower than oneDNN on a CPU.
    model.compile(
        keras.optimizers.Adam(1e-3), keras.losses.CategoricalCrossentropy(), metrics=["accuracy"], jit_compile=False
    )
    course: list[dict[str, float]] = []

    def note(epoch: int, logs: dict[str, float]) -> None:
        course.append({"seconds": time.monotonic() - begin, "val_accuracy": float(logs["val_accuracy"])})
        Path(out).write_text(json.dumps({"epochs": course}, indent=1), encoding="utf-8")

    watch = keras.callbacks.LambdaCallback(on_epoch_end=note)
    model.fit(train, validation_data=validation, epochs=int(epochs), callbacks=[watch], verbose=0)


if __name__ == "__main__":
    main(*sys.argv[1:])
