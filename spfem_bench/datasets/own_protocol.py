"""A protocol made of a user's own clips: its card, its list and its data set's card."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from spfem_bench.datasets.own_clips import OwnClips, OwnList
from spfem_bench.definitions.metrics import ClipRole
from spfem_bench.definitions.protocols import forget_protocols, in_order
from spfem_bench.errors import CardError, StorageError
from spfem_bench.files import write_atomically
from spfem_bench.texts import csv_text

METRICS = (
    "fad",
    "csim",
    "id-sim",
    "lip-corr",
    "lse-d",
    "lse-c",
)  # further default metrics are added here
"""The metrics of own clips; those without networks here are left out when none are named."""

_ON_REQUEST = ("av-offset", "lip-dyn", "m-lmd", "f-lmd", "av-loudness", "scc", "tcc")
_IN_SYNC = ("lse-d", "lse-c", "av-offset", "av-loudness")

REAL_IS = {
    "real": "FAD compares with the real clips given: the distance to real frames.",
    "reference": "FAD compares with the reference clips: it also counts how the reference differs, "
    "in person too.",
    "source": "FAD compares with the source clips: an output that changes nothing scores 0, and "
    "any change costs.",
}
"""What FAD means, by the role whose clips are taken for real."""

_MARK = "# Made by 'spfem-bench eval --generated', which makes it anew."
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

Setting = Literal["inter-id", "cross-id"]


def own_name(folder: Path) -> str:
    """Return a name for what is in a folder: the folder's, of letters, digits, '.', '_' and '-'.

    Raises CardError when none of its characters will do.
    """
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", folder.resolve().name).strip("._-")[:64]
    if not _NAME.fullmatch(name):
        raise CardError(f"the folder {folder} gives no name", "Add --method NAME")
    return name


def protocol_files(
    own: OwnClips, made: OwnList, name: str, *, setting: Setting, aligned: bool
) -> dict[str, str]:
    """Return the texts of a protocol's files by their names; the first is its card.

    *made* has no problems. *aligned*: the clips are face crops already. Raises CardError for a name
    that no protocol can have.
    """
    if not _NAME.fullmatch(name):
        remedy = "Use letters, digits, '.', '_' and '-': files are named after it"
        raise CardError(f"'{name}' is no name for a list of clips", remedy)
    roles: list[ClipRole] = ["source", "reference", "real"]
    if own.reference is None:
        roles.remove("reference")
    columns = [*roles, *(f"output_{n}" for n, _ in enumerate(own.generated, 1))]
    lacking = {} if own.reference else {"csim": "no reference clips: add --reference DIR"}
    if made.silent:
        count = f"{len(made.silent)} of {len(made.items) * len(own.generated)} outputs"
        remedy = "nor in their sources" if own.sound_of_source else "add --sound source"
        reason = f"no sound in {count}: {remedy}"
        lacking |= dict.fromkeys(_IN_SYNC, reason)
    card = [
        _MARK,
        f"title = {_toml(f'Own clips: {name}')}",
        "version = 1",
        f"setting = {_toml(setting)}",
        f"dataset = {_toml(f'{name}-clips')}",
        f"items = {_toml(f'{name}.csv')}",
        f"emotions = {_toml(in_order({item.emotion for item in made.items}))}",
        f"metrics = {_toml([m for m in METRICS if m not in lacking])}",
        f"on_request = {_toml([m for m in _ON_REQUEST if m not in lacking])}",
        f"faces = {_toml('aligned' if aligned else 'detect')}",
        'profile = "light"',
        f"notes = {_toml([REAL_IS[made.real_is]])}",
        "",
        "[clips]",
        *(f'{role} = "{{{role}}}"' for role in roles),
        "",
        "[outputs]",
        *(f'{_toml(m)} = "{{output_{n}}}"' for n, m in enumerate(own.generated, 1)),
    ]
    if lacking:
        card += ["", "[not_applicable]", *(f"{m} = {_toml(why)}" for m, why in lacking.items())]
    dataset = [
        _MARK,
        f"title = {_toml(f'Own clips: {name}')}",
        'licence = "your own"',
        'citation = "none"',
        "",
        "[folders]",
        *(f"{key} = {_toml(str(folder.resolve()))}" for key, folder in own.folders.items()),
    ]
    rows: list[Sequence[object]] = [["id", "speaker", "emotion", *columns]]
    for item in made.items:
        clips = [item.clips[role] for role in roles]
        rows.append([item.id, item.speaker, item.emotion, *clips, *item.outputs.values()])
    return {
        f"{name}.toml": _lines(card),
        f"{name}.csv": csv_text([str(cell) for cell in row] for row in rows),
        f"datasets/{name}-clips.toml": _lines(dataset),
    }


def write_protocol(folder: Path, files: dict[str, str]) -> tuple[Path, bool]:
    """Write a protocol's files; return the card's path, and whether it replaced another list.

    Raises StorageError when a card that is there was not made by this function, or it cannot be
    written.
    """
    replaced = False
    for name, text in files.items():
        path = folder / name
        try:
            before = path.read_text(encoding="utf-8") if path.is_file() else ""
        except (OSError, UnicodeDecodeError) as error:
            raise StorageError(f"cannot read {path}: {error}", "Add --name NAME") from error
        if before and path.suffix == ".toml" and not before.startswith(_MARK):
            problem = f"{path} is there, and is not made by eval --generated"
            raise StorageError(problem, "Add --name NAME, which names the folder in --results")
        replaced = replaced or bool(before and path.suffix == ".csv" and before != text)
    for name, text in files.items():
        write_atomically(folder / name, text)
    forget_protocols()
    return folder / next(iter(files)), replaced


def _lines(lines: Sequence[str]) -> str:
    return "\n".join(lines) + "\n"


def _toml(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
