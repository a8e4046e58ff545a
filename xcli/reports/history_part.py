"""The part of a page for a fine-tuned run: its epochs, and how it was trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from xcli.reports.thumbnails import Thumbnails


class HistoryPart:
    """The history of a fine-tuning.

    Args:
        history: as `EvaluationFiles.history` returns it.
        run: the members of `run.json`.
    """

    name = "history"

    def __init__(self, history: dict[str, Any], run: Mapping[str, Any]) -> None:
        self.data = history
        self._run = run

    def paths(self) -> Sequence[str]:
        return ()

    def attach(self, thumbnails: Thumbnails) -> None:
        """It has no images."""

    def facts(self) -> dict[str, Any]:
        epochs, kept = self.data["epochs"], self.data["kept"]
        return {
            "epochs": len(epochs),
            "phases": list(dict.fromkeys(epoch[0] for epoch in epochs)),
            "kept": epochs[kept - 1] if kept else None,
            "seconds": sum(epoch[-1] or 0 for epoch in epochs),
            "images": self._run.get("images") or {},
            "temperature": self._run.get("temperature"),
        }
