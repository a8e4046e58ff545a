"""Tables of findings."""

from __future__ import annotations

from xcli.analysis.audit_findings import Finding, findings_batch, in_order

FINDINGS = [
    Finding("a.png", "x", "tiny", 0.5, "30x20 pixels"),
    Finding("b\\\\c.png", "x", "wrong-label", 0.2, "=1", "y", "a.png"),
    Finding(None, "z", "small-class", 0.9, "2 images"),
    Finding("d\n.png", None, "wrong-label", 0.9, "text"),
]


def test_the_order_is_that_of_kinds_then_of_severity() -> None:
    assert [one.path for one in in_order(FINDINGS)] == ["d\n.png", "b\\\\c.png", "a.png", None]
    assert findings_batch([]).num_rows == 0
