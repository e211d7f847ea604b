"""A user's own folders of clips as items, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.metrics import ClipRole

OWN_OUTPUTS = "generated"
"""What addresses of outputs begin with."""


@dataclass(frozen=True)
class OwnClips:
    """What a user gives to have outputs scored.

    Attributes:
        generated: folders of outputs, by method.
        labels: a sheet (CSV) of speaker and emotion, by output.
        mapping: a sheet of which clips belong together; its rows alone are items.
        pattern: how speaker and emotion stand in names, such as ``{speaker}_{emotion}_{clip}``.
        sound_of_source: whether outputs are scored with the sound of their sources.
        frame_rate: of folders of frames, in Hz.
        any_length: whether outputs may be much shorter or longer than their sources.
    """

    generated: Mapping[str, Path]
    source: Path
    reference: Path | None = None
    real: Path | None = None
    labels: Path | None = None
    mapping: Path | None = None
    pattern: str = ""
    sound_of_source: bool = False
    frame_rate: float | None = None
    any_length: bool = False

    @property
    def folders(self) -> dict[str, Path]:
        """The folders by the keys that addresses begin with."""
        keys = {method: f"{OWN_OUTPUTS}_{n}" for n, method in enumerate(self.generated, 1)}
        if len(keys) == 1:
            keys = dict.fromkeys(keys, OWN_OUTPUTS)
        found = {keys[method]: folder for method, folder in self.generated.items()}
        others = {"source": self.source, "reference": self.reference, "real": self.real}
        return found | {key: folder for key, folder in others.items() if folder is not None}


@dataclass(frozen=True)
class OwnItem:
    """Clips that belong together, as addresses below the data set's folders."""

    id: str
    speaker: str
    emotion: str
    clips: Mapping[ClipRole, Clip]
    outputs: Mapping[str, Clip]  # by method


@dataclass(frozen=True)
class InputProblem:
    """Something that keeps clips from being scored: what, in which cases, and what to do."""

    what: str
    cases: tuple[str, ...] = ()
    remedy: str = ""


@dataclass
class OwnList:
    """Items made of a user's folders.

    Attributes:
        problems: what must be put right first; items are incomplete where there are any.
        remarks: what a user should know, one line each.
        silent: outputs without sound, by their paths.
        unreadable: outputs that cannot be read, or whose sources cannot, with the reason.
        real_is: the role whose clips are the real ones: ``real``, ``reference`` or ``source``.
    """

    items: list[OwnItem] = field(default_factory=list)
    problems: list[InputProblem] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    silent: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    real_is: ClipRole = "source"

    def refuse(self, what: str, cases: Iterable[str] = (), remedy: str = "") -> None:
        """Add a problem."""
        self.problems.append(InputProblem(what, tuple(cases), remedy))
