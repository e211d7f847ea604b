"""A new run record in the place of one that has more metrics."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

from spfem_bench.errors import CardError
from spfem_bench.evaluation.record import RecordedClip, RunRecord, load_run, parse_record, save


def save_beside(record: RunRecord, path: Path) -> tuple[RunRecord, str]:
    """Write a record where perhaps another lies, and lose none of the other's metrics.

    A record of the same clips gives the new one the metrics that it lacks. Of other clips, or
    without a checksum, it is kept under the name ``….old``.

    Returns:
        The record written, and a line on what became of the one before; empty for nothing to say.

    Raises:
        StorageError: it cannot be written.
    """
    try:
        before = load_run(path) if path.is_file() else None
    except CardError:
        before = None
    lacking = [m for m in before.metrics if m not in record.metrics] if before else []
    if before is None or not lacking:
        save(record, path)
        return record, ""
    names = ", ".join(sorted(lacking))
    if _same_clips(before, record):
        merged = _merged(before, record, lacking)
        save(merged, path)
        return merged, f"{path} keeps {names} from before, of the same clips."
    kept = _free_name(path)
    path.replace(kept)
    save(record, path)
    return record, f"{path} had {names} of other clips; it is kept as {kept.name}."


def _same_clips(before: RunRecord, new: RunRecord) -> bool:
    """Whether two records are of one method on clips of the same content, and of one scope.

    A clip that no metric of a run reads has no content in its record; outputs are always read.
    """

    def identity(record: RunRecord) -> Any:
        method = record.method.name, record.method.control, record.method.model
        protocol = record.protocol.name, record.protocol.version, record.protocol.list_sha256
        items = [(i.id, i.speaker, i.emotion, tuple(i.more_real)) for i in record.items]
        return method, protocol, record.profile, record.partial, items

    if before.unverified or identity(before) != identity(new):
        return False
    return all(
        old.clips.keys() == own.clips.keys()
        and all(_same_clip(role, old.clips[role], own.clips[role]) for role in own.clips)
        for old, own in zip(before.items, new.items, strict=True)
    )


def _same_clip(role: str, old: RecordedClip, new: RecordedClip) -> bool:
    unread = role != "output" and None in (old.content, new.content)
    return old.address == new.address and (unread or old.content == new.content)


def _merged(before: RunRecord, new: RunRecord, lacking: list[str]) -> RunRecord:
    old, content = before.plain(), new.plain()
    own = [s for s in content["scores"] if s["metric"] not in lacking]
    content["scores"] = own + [s for s in old["scores"] if s["metric"] in lacking]
    content["settings"] |= {m: old["settings"][m] for m in lacking}
    for item, earlier in zip(content["items"], old["items"], strict=True):
        kept = earlier["metrics"]
        item["metrics"] |= {m: kept[m] for m in lacking if m in kept}
        for role, clip in item["clips"].items():
            clip["content"] = clip["content"] or earlier["clips"][role]["content"]
    for refusal in old["refused"]:
        metrics = [m for m in refusal["metrics"] if m in lacking]
        if not metrics:
            continue
        key = refusal["item"], refusal["reason"]
        same = [r for r in content["refused"] if (r["item"], r["reason"]) == key]
        if same:
            same[0]["metrics"] = [*dict.fromkeys([*same[0]["metrics"], *metrics])]
        else:
            content["refused"].append({**refusal, "metrics": metrics})
    signed = [s for s in content["scores"] if s["signature"]]
    unavailable = any(not s["signature"] and s["partial"] for s in content["scores"])
    content["complete"] = not unavailable and all(
        s["value"] is not None and not s["partial"] for s in signed
    )
    return parse_record(content)


def _free_name(path: Path) -> Path:
    names = (path.with_name(f"{path.name}.old{n if n > 1 else ''}") for n in count(1))
    return next(name for name in names if not name.exists())
