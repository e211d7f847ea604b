"""Files known by their hash, and hashes pinned at the first download."""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar

import pydantic

from spfem_bench.caches import cache_folder
from spfem_bench.definitions.cards import Strict
from spfem_bench.errors import StorageError
from spfem_bench.stored import parse_json, read_bounded


def pins_path() -> Path:
    """Return the file that keeps the hashes of files pinned when they were first fetched."""
    return cache_folder() / "weights" / "pins.json"


def read_pins() -> dict[str, str]:
    """Return all pins by :func:`pin_key`; raise StorageError when their file is damaged."""
    try:
        pins = parse_json(read_bounded(pins_path()))
        if not all(re.fullmatch(r"[0-9a-f]{64}", str(pin)) for pin in pins.values()):
            raise ValueError("a pin that is no SHA-256")
        return pins
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        problem = f"{pins_path()} is damaged"
        raise StorageError(problem, "Remove it, then fetch those weights again") from error


def pin_key(owner: str, file: PinnedFile) -> str:
    """Return the key of a pin: a card that names another file needs another pin."""
    return f"{owner}/{file.name} of {file.git_blob or file.url or file.page}"


def with_pin(owner: str, file: PinnedFile) -> PinnedFile:
    """Return a file with the hash it was pinned to; unchanged when it has one or has no pin."""
    known = None if file.is_pinned else read_pins().get(pin_key(owner, file))
    return file.model_copy(update={"sha256": known}) if known else file


UNPUBLISHED = "unpublished"  # in the place of a hash that nobody publishes


class PinnedFile(Strict):
    """One file, known by its hash."""

    score_neutral: ClassVar[frozenset[str]] = frozenset(
        {"name", "git_blob", "bytes", "url", "member", "page"}
    )
    name: str  # relative to where its kind is kept
    # 64 hexadecimal digits. For a network's file whose hash nobody publishes, the word
    # `unpublished`, which `spfem_bench.pinned.pin` replaces.
    sha256: str = pydantic.Field(pattern=rf"^([0-9a-f]{{64}}|{UNPUBLISHED})$")
    # hash under which a git repository publishes the file, 40 hexadecimal digits
    git_blob: str | None = pydantic.Field(default=None, pattern=r"^[0-9a-f]{40}$")
    bytes: int | None = None  # its size
    # where it is fetched from (https, a fixed commit). A network's file without one, and without a
    # page, is shipped in the folder `weights` beside its card.
    url: str | None = pydantic.Field(default=None, pattern=r"^https://")
    member: str | None = None  # its name in the zip archive at the url
    # where a person downloads a file that has no address of its own
    page: str | None = pydantic.Field(default=None, pattern=r"^https://")

    @pydantic.model_validator(mode="after")
    def _can_be_checked(self) -> PinnedFile:
        if self.member and not (self.url and self.bytes and self.is_pinned):
            raise ValueError("'member' needs the archive's 'url', its own 'bytes' and 'sha256'")
        if self.shipped and not self.is_pinned:
            raise ValueError("a shipped file needs its 'sha256'")
        return self

    @property
    def is_pinned(self) -> bool:
        """Whether the hash of its bytes is known."""
        return self.sha256 != UNPUBLISHED

    @property
    def shipped(self) -> bool:
        """Whether the file travels with its card."""
        return self.url is None and self.page is None
