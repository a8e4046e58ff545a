"""The commands of a record that train, measure and use a classifier, and the program from Python."""

from __future__ import annotations

import signal

from tests.record.runner import Case, Held, Run

FROM = "--weights none --image-size 71"
TRAIN = "--seed 7 --workers 2 --device cpu --precision float32 --cache-dir cache --batch-size 8 --views 2"
DIGESTS = (r"\b[0-9a-f]{64}\b", "<DIGEST>")
"""A model file's, into which Keras writes addresses of objects, and what depends on it; the weights are compared."""
HEAD = f"finetune in/labelled -o RUN {FROM} {TRAIN} --unfreeze none --epochs 3 --val-split 0.25"
BLOCKS = f"finetune in/split -o RUN {FROM} {TRAIN} --unfreeze block14 --head-epochs 2 --epochs 6 --patience 6"
MACHINE = "--batch-size 4 --workers 2 --device cpu"

PYTHON = """
import hashlib, sys
import xcli
print(sorted(xcli.__all__), dir(xcli) == sorted(xcli.__all__))
for wrong in ({"classes": 5, "weights": "imagenet"}, {"input_shape": (100, 100, 3), "weights": None}, {"pooling": "x"}):
    try:
        xcli.Xception(**wrong)
    except Exception as error:
        print(type(error).__name__, error)
model = xcli.Xception(weights=None, classes=7)
print(model.name, model.count_params(), model.input_shape, model.output_shape, len(model.layers))
names = [(layer.name, type(layer).__name__, [str(weight.shape) for weight in layer.weights]) for layer in model.layers]
print(hashlib.sha256(repr(names).encode()).hexdigest(), [name for name, *_ in names][:12])
loaded = xcli.load_model(xcli.ModelSpec(weights="none", seed=7, classes=5))
options = xcli.RunOptions(batch_size=4, workers=2, device="cpu")
table = xcli.classify("in/photos", model=loaded, top=2, options=options)
print(table.schema.to_string(show_schema_metadata=False))
print(*table.to_pylist(), sep="\\n")
loaded = xcli.load_model(xcli.ModelSpec(weights="none", seed=7, include_top=False, image_size=71))
table = xcli.extract_features(["in/photos/a.jpg", "in/hostile/empty.png"], model=loaded, options=options)
print(table.schema.to_string(show_schema_metadata=False))
print([(row["path"], row["status"], row["error"], row["features"][:3]) for row in table.to_pylist()])
print(xcli.extract_features("in/photos", model=loaded, normalize=True, options=options, output="x.csv"))
for call in (
    lambda: xcli.extract_features("in/photos", model=loaded, options=options, output="x.csv"),
    lambda: xcli.classify("in/none", model=loaded),
    lambda: xcli.classify([]),
    lambda: xcli.load_model(xcli.ModelSpec(weights="in/garbage.h5")),
):
    try:
        call()
    except xcli.XcliError as error:
        print(type(error).__name__, error)
"""


def held_training(line: str = BLOCKS) -> Held:
    """A training that is killed when it has a checkpoint; which one depends on the moment."""
    return Held(line, wait=("RUN.partial/state.json",), end=signal.SIGKILL)


def training_cases() -> list[Case]:
    """All of them."""
    return [
        Case(
            "finetune",
            (
                Run(HEAD),
                Run(HEAD),
                Run(f"classify in/photos --model RUN {MACHINE} -o x.csv"),
                Run(f"evaluate in/labelled --model RUN {MACHINE} -o report --json"),
                Run(f"evaluate in/tables/labels.csv --model RUN {MACHINE} --split train --assert-top1 1"),
                Run(f"finetune in/tables/labels.csv -o NEXT --model RUN {TRAIN} --unfreeze none --epochs 2"),
                Run("info --model RUN"),
                Run(f"evaluate in/labelled --weights none --seed 7 --classes 2 --labels in/two.json {MACHINE}"),
            ),
            masks=(DIGESTS,),
        ),
        Case(
            "finetune-killed",
            (
                held_training(),
                Run(f"{BLOCKS} --mixup 0"),
                Run(BLOCKS),
                Run(f"classify in/photos --model RUN {MACHINE} -o -"),
            ),
            # Which epoch it was that the killed run had finished depends on the moment.
            masks=(DIGESTS, (r"(?m)^ *(head|blocks) \d+/\d+ .*\n", ""), (r"\d+ epochs of the phase '\w+'", "<EPOCHS>")),
        ),
        Case("python", (Run(code=PYTHON),)),
    ]
