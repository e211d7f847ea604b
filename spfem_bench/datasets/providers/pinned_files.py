"""Published clips, each known by its SHA-256."""

from __future__ import annotations

from collections.abc import Callable

from spfem_bench import pinned
from spfem_bench.datasets.provider import PROVIDERS, Provider
from spfem_bench.definitions.datasets import dataset_files
from spfem_bench.progress import SILENT, Progress


@PROVIDERS.register("pinned-files")
class PinnedFiles(Provider):
    """Files that are downloaded once and verified at every use."""

    def fetch(
        self, progress: Progress = SILENT, report: Callable[[str], object] = lambda message: None
    ) -> int:
        """Download the files that are absent or wrong; return how many the data set has.

        *report* is called with a line when another process is downloading a file. Raises
        WeightsError for files that cannot be fetched or are not the pinned ones, and StorageError.
        """
        files, phase = dataset_files(self.card).values(), self.card.name
        progress.begin(phase, len(files), "file")
        for file in files:
            if self.file_state(file) != "verified":
                pinned.fetch(file, self.places.cache, progress=False, report=report)
            progress.advance(phase)
        progress.end(phase)
        return len(files)
