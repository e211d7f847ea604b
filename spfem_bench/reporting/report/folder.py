"""The folder of a report: what is ours in it, and nothing else, is replaced or removed."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from spfem_bench.errors import CardError, StorageError
from spfem_bench.files import inside, read_file, write_atomically
from spfem_bench.hashes import sha256_of

SUMS = "SHA256SUMS"  # hashes of a report's files, for ``sha256sum -c``; tells ours from others
_LINE = re.compile(
    r"([0-9a-f]{64})  "
    r"(index\.html|scores\.csv|media/[0-9a-f]{32}\.(?:mp4|png)|records/[0-9a-f]{32}\.json)"
)


def listed(folder: Path) -> dict[str, str]:
    """Return the files of an earlier report in a folder with their hashes; empty without one.

    Raises:
        CardError: there is a list, but no report wrote it; or files that a report would replace.
        StorageError: it cannot be read.
    """
    try:
        lines = read_file(folder / SUMS).decode().splitlines()
    except FileNotFoundError:
        for name in ("index.html", "scores.csv", "media", "records"):
            if os.path.lexists(folder / name):
                problem = f"{folder} holds '{name}', which no report wrote"
                raise CardError(problem, "Name another folder: -o DIR") from None
        return {}
    except (OSError, ValueError) as error:
        raise StorageError(f"{folder / SUMS}: {error}", "Name another folder: -o DIR") from None
    found = [_LINE.fullmatch(line) for line in lines]
    if not all(found):
        raise CardError(f"{folder / SUMS} is no report's", "Name another folder: -o DIR")
    return {match[2]: match[1] for match in found if match}


def replace(folder: Path, made: Path, files: Mapping[str, bytes]) -> list[str]:
    """Put a new report in the place of an earlier one; return the names of all its files.

    Copies of clips are under ``media/`` in *made*. Files of the earlier report that the new one has
    not are removed, unless someone changed them; whatever else lies in the folder is left alone.
    Raises CardError when the folder holds files that no report wrote, which would be replaced, and
    StorageError when the folder cannot be written.
    """
    before = listed(folder)
    media = sorted(p.relative_to(made).as_posix() for p in made.glob("media/*"))
    after = {name: sha256_of(inside(made, name)) for name in media}
    for name in media:
        write_atomically(inside(folder, name), inside(made, name).read_bytes())
    for name, content in files.items():
        write_atomically(inside(folder, name), content)
        after[name] = sha256_of(inside(folder, name))
    sums = "".join(f"{known}  {name}\n" for name, known in sorted(after.items()))
    write_atomically(folder / SUMS, sums)
    for name, known in before.items():
        path = inside(folder, name)
        if name not in after and path.is_file() and sha256_of(path) == known:
            path.unlink()
    return sorted(after)
