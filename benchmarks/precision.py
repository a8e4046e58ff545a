"""What lower precision does to the results: features and classes against those in float32."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.photographs import find, tile

if TYPE_CHECKING:
    from benchmarks.settings import Settings
    from benchmarks.timing import Data, Save


def measure(settings: Settings, save: Save) -> Data:
    """Compares each precision that the processor has with float32, over the distinct photographs; for a child."""
    import numpy as np

    folder = Path(settings.scratch, "distinct")
    tile(find(settings.photographs)[: settings.distinct], folder, settings.distinct)
    exact, *others = settings.precisions
    facts: list[Data] = []
    if not others:
        facts.append({"name": "features in bfloat16", "value": None, "unit": "the processor has no instructions"})
    reference = features(settings, folder, exact) if others else None
    for precision in others:
        found = cosines(reference, features(settings, folder, precision))
        name = f"cosine of features, {precision} against {exact}, {settings.distinct} photographs"
        facts.append({"name": f"{name}: median", "value": float(np.median(found)), "unit": ""})
        facts.append({"name": f"{name}: least", "value": float(found.min()), "unit": ""})
        save({"groups": [], "facts": facts})
    top = classes(settings, folder, exact) if others and settings.classifier else None
    for precision in others:
        name = f"same best class, {precision} against {exact}"
        if top is None:
            facts.append({"name": name, "value": None, "unit": "not measured: give --classifier"})
        else:
            same = 100 * float(np.mean(top == classes(settings, folder, precision)))
            facts.append({"name": name, "value": same, "unit": "% of photographs"})
    return {"groups": [], "facts": facts}


def cosines(one: Any, other: Any) -> Any:
    """Cosine of the angle between the rows of two arrays float32[n, width]: float64[n]."""
    import numpy as np

    one, other = one.astype(np.float64), other.astype(np.float64)
    return (one * other).sum(1) / (np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1))


def vectors(table: Any) -> Any:
    """The features of a table of pyarrow, float32[n, width]."""
    column = table["features"].combine_chunks()
    return column.values.to_numpy(zero_copy_only=False).reshape(len(column), -1)


def features(settings: Settings, folder: Path, precision: str) -> Any:
    """Features of the photographs, float32[n, 2048]."""
    from xcli import RunOptions, extract_features, load_model

    model = load_model(weights=settings.weights, include_top=False)
    table = extract_features(folder, model=model, options=RunOptions(device="cpu", precision=precision))
    return vectors(table)


def classes(settings: Settings, folder: Path, precision: str) -> Any:
    """The best class of each photograph, int[n]."""
    from xcli import RunOptions, classify, load_model

    model = load_model(weights=settings.classifier)
    table = classify(folder, model=model, top=1, options=RunOptions(device="cpu", precision=precision))
    return table["index_1"].to_numpy()
