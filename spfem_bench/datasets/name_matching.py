"""Names of clips, matched: an output's with those of its source, reference and real clip."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from difflib import get_close_matches

from spfem_bench.errors import CardError

_WORDS = (
    "audio|edited|fake|final|gen|generated|generation|merged|out|output|outputs|pred|predicted|"
    "prediction|recon|rendered|result|results|syn|synth|synthesized|with_audio"
)
_BEFORE = re.compile(rf"^(?:(?:{_WORDS})[_\-. ]+)+(?=[^_\-. ])", re.IGNORECASE)
_AFTER = re.compile(rf"(?<=[^_\-. ])(?:[_\-. ]+(?:{_WORDS}))+$", re.IGNORECASE)

MEAD_NAMES = re.compile(
    r"(?P<speaker>[MW]\d{3})(?:_source)?_"
    r"(?P<emotion>angry|contempt|disgusted|fear|happy|neutral|sad|surprised)"
    r"(?:_level_?[123])?_(?P<clip>\w+)"
)
"""MEAD's names and those of the authors' clips, folders joined by ``_``: ``M003_happy_001``."""


def bare_name(name: str) -> str:
    """Return a name without the words that systems put before and after it.

    >>> bare_name("out/gen_M003_001_result")
    'out/M003_001'
    """
    folder, slash, last = name.rpartition("/")
    return folder + slash + _AFTER.sub("", _BEFORE.sub("", last))


def compared_name(name: str) -> str:
    """Return a name as names are compared: NFC, without regard to small and capital letters."""
    return unicodedata.normalize("NFC", name).casefold()


class ClipNames:
    """The names of the clips of one folder, without endings, to be searched for one.

    A name may be there twice, for two files.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.names = sorted(names)
        self._by_rule: list[dict[str, list[str]]] = [{}, {}, {}]
        self._by_words: dict[tuple[str, ...], list[str]] = {}
        self._by_last: dict[tuple[str, ...], list[str]] = {}  # without subfolders
        for name in self.names:
            for keys, key in zip(self._by_rule, _keys(name), strict=True):
                keys.setdefault(key, []).append(name)
            self._by_words.setdefault(_words(name), []).append(name)
            self._by_last.setdefault(_words(name.rpartition("/")[2]), []).append(name)

    def find(self, wanted: str) -> list[str]:
        """Return the names that fit another folder's name: one, none, or several that fit alike.

        In this order: the same name; the same but for words such as ``gen_`` and ``_result``; the
        same in another subfolder; the longest name that is a part of *wanted*, or has it as a part.
        Parts are cut at what is no letter or digit: ``clip1`` is no part of ``clip10``.
        """
        for keys, key in zip(self._by_rule, _keys(wanted), strict=True):
            if key in keys:
                return keys[key]
        words = _words(wanted)
        runs = [words[a:b] for a in range(len(words)) for b in range(a + 1, len(words) + 1)]
        for known in (self._by_words, self._by_last):
            if inner := [run for run in runs if run in known]:
                longest = max(len("".join(run)) for run in inner)
                chosen = [run for run in inner if len("".join(run)) == longest]
                return list(dict.fromkeys(name for run in chosen for name in known[run]))
        n = len(words)
        outer = [
            name
            for found, names in self._by_words.items()
            if any(found[k : k + n] == words for k in range(len(found) - n + 1))
            for name in names
        ]
        return list(dict.fromkeys(outer))

    def nearest(self, wanted: str) -> str:
        """Return the name that looks most like another; empty when none does."""
        by_last = {_keys(name)[2]: name for name in reversed(self.names)}
        close = get_close_matches(_keys(wanted)[2], by_last, n=1, cutoff=0.5)
        return by_last[close[0]] if close else ""


def _keys(name: str) -> tuple[str, str, str]:
    bare = bare_name(name)
    return compared_name(name), compared_name(bare), compared_name(bare.rpartition("/")[2])


def _words(name: str) -> tuple[str, ...]:
    return tuple(re.findall(r"[^\W_]+", compared_name(bare_name(name))))[:40]


def name_pattern(pattern: str) -> re.Pattern[str]:
    """Return a pattern such as ``{speaker}_{emotion}_{clip}`` as a regular expression.

    Raises CardError when it has neither ``{speaker}`` nor ``{emotion}``, or one twice.
    """
    parts = re.split(r"\{(\w+)\}", pattern)
    fields = parts[1::2]
    if not {"speaker", "emotion"} & set(fields) or len(set(fields)) < len(fields):
        raise CardError(
            f"the pattern '{pattern}' must have {{speaker}} or {{emotion}}, each once",
            "Write for example --pattern '{speaker}_{emotion}_{clip}'",
        )
    texts = [re.escape(part).replace(r"\*", "[^/]*") for part in parts[::2]]
    groups = [f"(?P<{field}>[^/]+?)" for field in fields]
    return re.compile("".join(t + g for t, g in zip(texts, [*groups, ""], strict=True)))


def read_name(pattern: re.Pattern[str], name: str) -> Mapping[str, str] | None:
    """Return what a pattern reads from a name, from its last part alone or from all of it."""
    last = name.rpartition("/")[2]
    tried = (last, bare_name(last), name, bare_name(name), bare_name(name).replace("/", "_"))
    match = next(filter(None, map(pattern.fullmatch, tried)), None)
    return match.groupdict() if match else None
