"""What FAD's real clips are, where they are not clips of their own."""

from __future__ import annotations

from collections.abc import Sequence

from spfem_bench.definitions.metrics import known_metric
from spfem_bench.evaluation.record import RunRecord

_MEANING = {
    "source": "the source clips are taken for real: an output that changes nothing scores 0",
    "reference": "the reference clips are taken for real: how they differ counts too",
}


def real_clip_notes(records: Sequence[RunRecord]) -> list[str]:
    """Return a line for each protocol of which the real clips are the sources or references."""
    notes: dict[str, None] = {}
    several = len({record.protocol.name for record in records}) > 1
    for record in records:
        cards = filter(None, map(known_metric, record.metrics))
        labels = [card.label for card in cards if "real" in card.compare]
        role = _real_is(record)
        if labels and role:
            place = f" on {record.protocol.name}" if several else ""
            notes[f"{', '.join(labels)}{place}: {_MEANING[role]}"] = None
    return list(notes)


def _real_is(record: RunRecord) -> str:
    """Return the role whose clips are the real ones of every item; empty when neither is."""
    if any(item.more_real for item in record.items):
        return ""
    items = [item.clips for item in record.items if "real" in item.clips]
    for role in _MEANING:
        same = (role in c and c[role].address == c["real"].address for c in items)
        if items and all(same):
            return role
    return ""
