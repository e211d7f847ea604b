"""A user's outputs matched with their sources and other clips, before any network runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

from spfem_bench.datasets.clip_folders import ClipFolder, clip_seconds, is_silent
from spfem_bench.datasets.clip_sheets import ClipSheet
from spfem_bench.datasets.name_matching import (
    ClipNames,
    bare_name,
    compared_name,
    name_pattern,
)
from spfem_bench.datasets.own_clips import OwnClips, OwnItem, OwnList
from spfem_bench.datasets.own_labels import NamedItem, label_items
from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.metrics import ClipRole
from spfem_bench.errors import CardError, ClipError
from spfem_bench.progress import SILENT, Progress
from spfem_bench.texts import count_text, few

SHORTEST, LONGEST = 0.8, 1.25
"""An output's length as a part of its source's; others are reported, see ``any_length``."""


def match_clips(own: OwnClips, progress: Progress = SILENT) -> OwnList:
    """Return the items of a user's folders, with all that is wrong with them at once.

    No network runs. *progress* has the phase ``check``: lengths and sound are read.
    """
    made = OwnList()
    folders = _read_folders(own, made)
    paths = [path for path in (own.mapping, own.labels) if path is not None]
    sheets = [sheet for path in paths if (sheet := _read_sheet(path, made))]
    mapped = next((sheet for sheet in sheets if sheet.path == own.mapping), None)
    _check_folders(own, folders, mapped, made)
    made.real_is = _real_is(own, mapped)
    try:
        pattern = name_pattern(own.pattern) if own.pattern else None
    except CardError as error:
        made.refuse(error.problem, remedy=error.remedy)
    if own.frame_rate is None:
        frames = [name for folder in folders.values() for name in folder.frame_folders]
        if frames:
            what = f"the frame rate of {count_text(len(frames), 'folder')} of frames is not given"
            made.refuse(what, frames, "Add for example --frame-rate 25")
    if made.problems:
        return made
    matching = _Matching(own, folders, sheets, made)
    matching.make_items()
    if not made.problems:
        made.items = label_items(matching.named_items(), pattern, own.pattern, made)
    if not made.problems:
        _check_media(own, made, progress)
    return made


def _read_folders(own: OwnClips, made: OwnList) -> dict[str, ClipFolder]:
    folders = {}
    for key, path in own.folders.items():
        try:
            folders[key] = ClipFolder.read(path)
        except (ClipError, OSError) as error:
            remedy = error.remedy if isinstance(error, ClipError) else "Check the folder"
            problem = error.problem if isinstance(error, ClipError) else str(error)
            made.refuse(f"{_option(key)} {problem}", remedy=remedy)
    return folders


def _check_folders(
    own: OwnClips, folders: Mapping[str, ClipFolder], mapped: ClipSheet | None, made: OwnList
) -> None:
    """Refuse one folder for two things, where a clip would be compared with itself.

    Real clips may be the sources or the references, and a mapping may choose each reference among
    the sources.
    """
    chosen = mapped and all(cells.get("reference") for _, cells in mapped.rows)
    for one, other in combinations(folders, 2):
        path, outputs = folders[one].path, one.startswith("generated")
        if not _same(path, folders[other].path) or (not outputs and (other == "real" or chosen)):
            continue
        remedy = "Name the folder of each"
        if not outputs:
            remedy = "Leave out --reference, or name each output's with --mapping FILE"
        what = f"{_option(one)} and {_option(other)} are the same folder, {path}"
        made.refuse(
            what.replace("--generated and --generated", "two of --generated"), remedy=remedy
        )
    for role in ("reference", "real"):
        if mapped and role not in own.folders and any(c.get(role) for _, c in mapped.rows):
            what = f"{mapped.path} has a column '{role}', and --{role} is not given"
            made.refuse(what, remedy=f"Add --{role} DIR, which may be the folder of --source")


def _real_is(own: OwnClips, mapped: ClipSheet | None) -> ClipRole:
    """Return which role's clips are the real ones, also where --real is the folder of another."""
    if own.real is None:
        return "reference" if own.reference else "source"
    if mapped and any(cells.get("real") for _, cells in mapped.rows):
        return "real"
    if _same(own.real, own.source):
        return "source"
    return "reference" if own.reference and _same(own.real, own.reference) else "real"


def _same(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve()


def _option(key: str) -> str:
    return f"--{key.partition('_')[0]}"


def _read_sheet(path: Path, made: OwnList) -> ClipSheet | None:
    try:
        return ClipSheet.read(path)
    except CardError as error:
        made.refuse(error.problem, remedy=error.remedy)
        return None


class _Matching:
    """One run of the matching: which clips belong to each output."""

    def __init__(
        self,
        own: OwnClips,
        folders: Mapping[str, ClipFolder],
        sheets: Sequence[ClipSheet],
        made: OwnList,
    ) -> None:
        self.own, self.folders, self.sheets, self.made = own, folders, sheets, made
        self.names = {key: ClipNames(folder.clips) for key, folder in folders.items()}
        self.keys = dict(zip(own.generated, own.folders, strict=False))  # by method
        self.cells: dict[str, dict[str, str]] = {}  # by output of the first method
        self.items: dict[str, OwnItem] = {}  # by output of the first method
        self.source_names: dict[str, str] = {}  # by output of the first method

    def make_items(self) -> None:
        """Fill ``items``; what does not fit becomes a problem."""
        first = next(iter(self.keys))
        outputs = self._outputs(first)
        self._read_cells(outputs)
        mapped = next((sheet for sheet in self.sheets if sheet.path == self.own.mapping), None)
        if mapped:
            rest = [name for name in outputs if name not in mapped.matched]
            outputs = [name for name in outputs if name in mapped.matched]
            if rest:
                what = f"Left out: {count_text(len(rest), 'output')} not in {mapped.path}"
                self.made.remarks.append(f"{what}: {few(rest)}")
        several = {
            m: self._other_method(m, outputs) for m in list(self.keys)[1:]
        }  # the first method's outputs say what an item is
        roles: tuple[ClipRole, ...] = ("source", "reference", "real")
        found = {role: self._role(role, outputs) for role in roles if role in self.folders}
        if self.made.problems:
            return
        used: dict[ClipRole, set[str]] = {role: set() for role in found}
        for name in outputs:
            clips: dict[ClipRole, Clip] = {}
            for role, names in found.items():
                clips[role] = self._clip(role, names[name])
                used[role].add(names[name])
            clips.setdefault("real", clips["source"])
            if self.made.real_is != "real":
                clips["real"] = clips[self.made.real_is]
            made = {first: self._clip(self.keys[first], name)}
            made |= {m: self._clip(self.keys[m], names[name]) for m, names in several.items()}
            if self.own.sound_of_source:
                sound = clips["source"].audio or clips["source"].path
                made = {method: replace(clip, audio=sound) for method, clip in made.items()}
            id_ = bare_name(name).replace("/", "_").lstrip("=+-@＝＋－＠ ") or "item"
            self.items[name] = OwnItem(id_, "", "", clips, made)
            self.source_names[name] = found["source"][name]
        for role, taken in used.items():
            clips_there = self.folders[role].clips
            if rest := sorted(clips_there.keys() - taken):
                count = f"{len(rest)} of {len(clips_there)} clips"
                self.made.remarks.append(f"--{role}: {count} belong to no output: {few(rest)}")

    def named_items(self) -> list[NamedItem]:
        """Return the items with what is known of their names."""
        return [
            NamedItem(name, self.source_names[name], self.cells[name], item)
            for name, item in self.items.items()
        ]

    def _clip(self, key: str, name: str) -> Clip:
        folder = self.folders[key]
        try:
            return folder.clip(folder.clips[name][0], key, self.own.frame_rate)
        except (ClipError, CardError, OSError) as error:
            problem = getattr(error, "problem", str(error))
            self.made.refuse(problem, remedy=getattr(error, "remedy", ""))
            return Clip(Path(key))

    def _outputs(self, method: str) -> list[str]:
        """Return a method's outputs; two files for one item are a problem."""
        folder = self.folders[self.keys[method]]
        by_key: dict[str, list[str]] = {}
        for name, files in folder.clips.items():
            by_key.setdefault(compared_name(bare_name(name)), []).extend(files)
        twice = [" and ".join(files) for files in by_key.values() if len(files) > 1]
        if twice:
            self.made.refuse(f"{folder.path}: two outputs for one name", twice, "Keep one of each")
        return sorted(folder.clips)

    def _read_cells(self, outputs: Sequence[str]) -> None:
        """Match the sheets' rows with outputs."""
        names = ClipNames(outputs)
        self.cells = {name: {} for name in outputs}
        for sheet in self.sheets:
            unknown, twice = [], []
            for written, cells in sheet.rows:
                match = names.find(sheet.stem(written))
                if len(match) != 1:
                    unknown.append(_with_near(written, match, names.nearest(sheet.stem(written))))
                elif match[0] in sheet.matched:
                    twice.append(written)
                else:
                    sheet.matched.add(match[0])
                    self.cells[match[0]] |= {k: v for k, v in cells.items() if v}
            if unknown:
                what = f"{sheet.path}: {len(unknown)} of {len(sheet.rows)} rows name no output"
                self.made.refuse(what, unknown, "Correct the names, or take the rows out")
            if twice:
                self.made.refuse(f"{sheet.path}: two rows for one output", twice, "Keep one")
            rest = [name for name in outputs if name not in sheet.matched]
            if rest and sheet.path == self.own.labels:
                what = f"{sheet.path}: {len(rest)} of {len(outputs)} outputs have no row"
                self.made.refuse(what, rest, "Add a row for each")

    def _role(self, role: ClipRole, outputs: Sequence[str]) -> dict[str, str]:
        """Return the name of each output's clip in a role."""
        names, found = self.names[role], {}
        unmatched, several, wrong = [], [], []
        for output in outputs:
            cell = self.cells[output].get(role)
            if cell is not None:
                match = names.find(ClipSheet.stem(cell))
                if len(match) != 1:
                    wrong.append(_with_near(cell, match, names.nearest(ClipSheet.stem(cell))))
                    continue
            else:
                match = names.find(output)
                if len(match) != 1 and role != "source":  # named after the source, not the output
                    sources = self.names["source"].find(output)
                    by_source = names.find(sources[0]) if len(sources) == 1 else []
                    match = by_source if len(by_source) == 1 else match
            files = [file for name in match for file in self.folders[role].clips[name]]
            if len(files) == 1:
                found[output] = match[0]
            elif files:
                several.append(f"{output}: {' and '.join(files[:3])}{' …' * (len(files) > 3)}")
            else:
                unmatched.append(_with_near(output, [], names.nearest(output)))
        path, advice = self.folders[role].path, "name them alike, or say which with --mapping FILE"
        if wrong:
            what = f"{self.own.mapping}: cells of the column '{role}' name no clip of {path}"
            self.made.refuse(what, wrong, "Correct the names")
        if several:
            what = f"{len(several)} of {len(outputs)} outputs fit several files of {path}"
            self.made.refuse(what, several, f"Keep one, {advice}")
        if unmatched:
            what = f"{len(unmatched)} of {len(outputs)} outputs have no {role} clip in {path}"
            self.made.refuse(what, unmatched, advice.capitalize().replace("file", "FILE"))
        return found

    def _other_method(self, method: str, outputs: Sequence[str]) -> dict[str, str]:
        """Return another method's outputs by those of the first."""
        own = {compared_name(bare_name(name)): name for name in self._outputs(method)}
        found = {o: own.get(compared_name(bare_name(o)), "") for o in outputs}
        if lacking := [output for output, name in found.items() if not name]:
            path = self.folders[self.keys[method]].path
            what = f"{len(lacking)} of {len(outputs)} outputs of the first method are not in {path}"
            cases = [
                _with_near(name, [], self.names[self.keys[method]].nearest(name))
                for name in lacking
            ]
            self.made.refuse(what, cases, "Give all methods' outputs of the same clips")
        if rest := sorted({*own.values()} - {*found.values()}):
            what = (
                f"Left out: {count_text(len(rest), 'output')} of {method} that others do not have"
            )
            self.made.remarks.append(f"{what}: {few(rest)}")
        return found


def _with_near(name: str, several: Sequence[str], near: str) -> str:
    if several:
        return f"{name}: fits {' and '.join(several[:3])}"
    return f"{name}; the nearest is {near}" if near else name


def _check_media(own: OwnClips, made: OwnList, progress: Progress) -> None:
    """Compare lengths of outputs and sources, and look for sound."""
    roots = own.folders

    def local(clip: Clip) -> Clip:
        def path(address: Path) -> Path:
            return roots[address.parts[0]].joinpath(*address.parts[1:])

        return replace(clip, path=path(clip.path), audio=clip.audio and path(clip.audio))

    odd, seconds = [], {}
    outputs = [(item, clip) for item in made.items for clip in item.outputs.values()]
    progress.begin("check", len(outputs), "clip")
    for item, clip in outputs:
        source = item.clips["source"]
        progress.advance("check")
        try:  # an unreadable clip is refused by the preflight
            if source not in seconds:
                seconds[source] = clip_seconds(local(source))
            length = clip_seconds(local(clip))
            if not SHORTEST <= length / max(seconds[source], 1e-6) <= LONGEST:
                odd.append(
                    f"{local(clip).path}: {length:.2f} s, its source {seconds[source]:.2f} s"
                )
            if is_silent(local(clip)):
                made.silent.append(str(local(clip).path))
        except ClipError as error:
            made.unreadable.append(error.problem)
    progress.end("check")
    if odd and not own.any_length:
        what = f"{len(odd)} of {len(outputs)} outputs are much shorter or longer than their source"
        made.refuse(what, odd, "Check which source each belongs to, or add --any-length")
