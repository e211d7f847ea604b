"""One file per architecture, and the loader of pinned weights."""
