"""A user's own folders of clips, named on the data set's card."""

from __future__ import annotations

from pathlib import Path

from spfem_bench.datasets.provider import PROVIDERS, Holdings, Provider
from spfem_bench.errors import ClipError, MissingClipError, near_names
from spfem_bench.files import inside


@PROVIDERS.register("folders")
class OwnFolders(Provider):
    """Files of folders that the card names; their bytes are hashed into signatures.

    The first part of a clip's address is the key of its folder.
    """

    def verified(self, name: str) -> Path:
        """Return the path of a file or a folder of frames; MissingClipError when it is not there.

        Raises ClipError for an address whose first part is no folder of the card.
        """
        inside(Path(), name)
        key, _, rest = name.partition("/")
        if key not in self.card.folders or not rest:
            problem = f"{name}: begins with no folder of the data set '{self.card.name}'"
            raise ClipError(problem, near_names(key, self.card.folders))
        path = inside(self._root(key), rest)
        if not path.exists():
            remedy = f"Put it there, or change 'folders' in {self.card.path}"
            raise MissingClipError(f"{path}: missing", remedy)
        return path

    def _root(self, key: str) -> Path:
        return self.card.path.parent / Path(self.card.folders[key]).expanduser()

    def holdings(self) -> Holdings:
        """Return how many of the folders are here."""
        here = sum(self._root(key).is_dir() for key in self.card.folders)
        return Holdings(f"{here}/{len(self.card.folders)} folders", 0, "your folders")

    def how_to_get(self) -> str:
        """Return where its folders are named."""
        return f"nothing to fetch, its folders are named in {self.card.path}"
