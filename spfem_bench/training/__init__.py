"""Training of the STCCL metric; only the command line imports it."""
