"""Published clips, each known by its SHA-256."""

from __future__ import annotations

from spfem_bench import pinned
from spfem_bench.datasets.provider import PROVIDERS, Provider
from spfem_bench.definitions.datasets import dataset_files
from spfem_bench.definitions.pins import PinnedFile
from spfem_bench.media.video import file_sha256
from spfem_bench.progress import SILENT, Progress


@PROVIDERS.register("pinned-files")
class PinnedFiles(Provider):
    """Files that are downloaded once and verified at every use."""

    def fetch(self, progress: Progress = SILENT) -> int:
        """Download the files that are absent or wrong; return how many the data set has.

        Raises:
            DownloadError: a file cannot be fetched, or is not the pinned one.
        """
        files = dataset_files(self.card).values()
        progress.begin(self.card.name, len(files), "file")
        for file in files:
            if not self._is_verified(file):
                pinned.fetch(file, self.places.cache, progress=False)
            progress.advance(self.card.name)
        progress.end(self.card.name)
        return len(files)

    def _is_verified(self, file: PinnedFile) -> bool:
        path = self.pinned_path(file)
        return path is not None and file_sha256(path) == file.sha256
