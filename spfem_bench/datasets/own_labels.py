"""Speakers and emotions of a user's own clips: of sheets, read from names, or one for all."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from spfem_bench.datasets.name_matching import MEAD_NAMES, bare_name, compared_name, read_name
from spfem_bench.datasets.own_clips import OwnItem, OwnList
from spfem_bench.definitions.protocols import AVERAGE

ALL = "all"
"""The emotion of items of which none is known."""

_SHEET, _NAMES, _NOTHING = "as labelled", "read from the names", ""


@dataclass(frozen=True)
class NamedItem:
    """An item with the names of its output and source, and its cells in sheets."""

    output: str
    source: str
    cells: Mapping[str, str]
    item: OwnItem


def label_items(
    named: Sequence[NamedItem], pattern: re.Pattern[str] | None, text: str, made: OwnList
) -> list[OwnItem]:
    """Return the items with speakers and emotions; what cannot be used becomes a problem of *made*.

    *pattern* is the user's, as written in *text*; without one, MEAD's names are tried, and used
    where all names are so. An emotion that is not known is ``all``, a speaker is then the source.
    """
    read = {one.output: read_name(pattern or MEAD_NAMES, one.output) for one in named}
    if pattern:
        needed = [n.output for n in named if not {"speaker", "emotion"} <= n.cells.keys()]
        if unread := [name for name in needed if read[name] is None]:
            what = f"{len(unread)} of {len(named)} names do not fit --pattern {text}"
            made.refuse(what, unread, "Change it, or give --labels FILE")
    elif not all(read.values()):
        read = dict.fromkeys(read)
    origins: dict[str, set[str]] = {"speaker": set(), "emotion": set()}

    def value(one: NamedItem, key: str, otherwise: str) -> str:
        tried = {
            _SHEET: one.cells.get(key),
            _NAMES: (read[one.output] or {}).get(key),
            _NOTHING: otherwise,
        }
        origin, chosen = next((k, v.strip()) for k, v in tried.items() if v and v.strip())
        origins[key].add(origin)
        return chosen

    labelled = [
        replace(
            one.item,
            speaker=value(one, "speaker", bare_name(one.source)),
            emotion=value(one, "emotion", ALL),
        )
        for one in named
    ]
    texts = {text for i in labelled for text in (i.id, i.speaker, i.emotion)}
    odd = [repr(text) for text in sorted(texts) if not text.isprintable()]
    odd += [AVERAGE] if any(i.emotion == AVERAGE for i in labelled) else []
    if odd:
        made.refuse("names, speakers or emotions that cannot be used", odd, "Change them")
    for noun, names in (
        ("speaker", {i.speaker for i in labelled}),
        ("emotion", {i.emotion for i in labelled}),
    ):
        if alike := _spelled_twice(names):
            made.refuse(f"one {noun} in two spellings", alike, "Write each in one way")
    by_id: dict[str, list[str]] = {}
    for one in named:
        by_id.setdefault(compared_name(one.item.id), []).append(one.output)
    if twice := [" and ".join(names) for names in by_id.values() if len(names) > 1]:
        made.refuse("two outputs for one name", twice, "Rename one of each")
    unknown = {
        "emotion": f"one for all, '{ALL}' (--labels FILE or --pattern say more)",
        "speaker": "each source is taken for another one (--labels FILE or --pattern say more)",
    }
    for key, title in (("emotion", "Emotions"), ("speaker", "Speakers")):
        count = len({getattr(item, key) for item in labelled})
        made.remarks.append(
            f"{title}: {count}, {' or '.join(o or unknown[key] for o in sorted(origins[key]))}"
        )
    return labelled


def _spelled_twice(names: Iterable[str]) -> list[str]:
    """Return names that differ in capital letters or in how Unicode writes them, joined."""
    alike: dict[str, list[str]] = {}
    for name in sorted(names):
        alike.setdefault(compared_name(name), []).append(name)
    return [" and ".join(several) for several in alike.values() if len(several) > 1]
