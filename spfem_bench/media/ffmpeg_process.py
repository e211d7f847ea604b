"""Processes of ffmpeg: started with limits (on Linux), watched, and ended."""

from __future__ import annotations

import io
import math
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import IO, Any

from spfem_bench.errors import ClipError
from spfem_bench.media import ffmpeg
from spfem_bench.media.ffmpeg import CostError, reading, reason_of

_Process = subprocess.Popen[bytes]

PATIENCE = 60.0
"""Seconds without a byte after which ffmpeg is ended: a sleeping disk takes some ten."""

ROOM = 1 << 30
"""Bytes of memory for ffmpeg's program, queues and index of a file, beside THREAD and PIXEL."""

THREAD = 64 << 20
"""Bytes of memory for each processor core: ffmpeg starts several threads for one."""

PIXEL = 96
"""Bytes of memory for each pixel of a picture, in all frames that decoders hold at a time."""

READING = 15
"""Seconds of processor time for headers and packets, and as many more for each GB of a file."""

DECODING = 20_000
"""Seconds of processor time for decoding one clip: an hour of full HD takes some 2,000."""

CHANGES = {
    "Invalid too big or non positive size": "size of a rotated picture",
    "Changing audio frame properties on the fly": "channel layout, format or rate of the sound",
}
"""What changes in a stream, by ffmpeg's message when it cannot follow."""

NO_MEMORY = ("Cannot allocate memory", "ut of memory", "Resource temporarily unavailable")
"""ffmpeg's messages when it gets no memory; the last one, for a thread's stack."""


@dataclass(frozen=True)
class Limits:
    """Limits of one process: bytes of memory, seconds of processor time."""

    memory: int
    seconds: int

    @classmethod
    def reading(cls, path: Path) -> Limits:
        """Return the limits for a file's header and packets."""
        return cls(_memory(0), math.ceil(READING * (1 + path.stat().st_size / 1e9)))

    @classmethod
    def decoding(cls, pixels: int) -> Limits:
        """Return the limits for decoding pictures of so many pixels."""
        return cls(_memory(pixels), DECODING)


def _memory(pixels: int) -> int:
    return ROOM + THREAD * (os.cpu_count() or 1) + PIXEL * pixels


def header_text(path: Path) -> str:
    """Return what ffmpeg prints about a file; raise CostError at a limit of time or memory."""
    limits = Limits.reading(path)
    with tempfile.TemporaryFile() as errors:
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": errors}
        with _started(reading(path), limits, **streams) as process:
            try:
                status = process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                raise _stalled(path, PATIENCE) from None
        text = _text(errors)
    if error := _limit_error(path, text, status, limits):
        raise error
    return text


@contextmanager
def decoding(
    node: Any,
    path: Path,
    stdin: Iterator[bytes] | None = None,
    *,
    patience: float | None = None,
    pixels: int = ffmpeg.LARGEST,
) -> Iterator[IO[bytes]]:
    """Start ffmpeg on a compiled graph and yield its output as a pipe.

    *node* is an ffmpeg-python output that writes to ``pipe:``; *stdin* feeds ``pipe:0``. ffmpeg is
    ended after *patience* seconds (:data:`PATIENCE` when None) without output, or without an end
    when all is read. *pixels* of a picture limit its memory.

    Raises:
        ClipError: on leaving the block, for damage; CostError when it hung, or reached a limit.
    """
    # -xerror: a damaged stream ends with an error instead of patched-up frames.
    command = [*node.compile(cmd=ffmpeg.program()), "-hide_banner", "-v", "error", "-xerror"]
    with command_output(command, path, Limits.decoding(pixels), stdin, patience) as pipe:
        yield pipe


@contextmanager
def command_output(
    command: list[str],
    path: Path,
    limits: Limits,
    stdin: Iterator[bytes] | None = None,
    patience: float | None = None,
) -> Iterator[IO[bytes]]:
    """Start a command of ffmpeg and yield its output, see :func:`decoding`."""
    feed = subprocess.DEVNULL if stdin is None else subprocess.PIPE
    problems: list[ClipError] = []
    most = PATIENCE if patience is None else patience
    with tempfile.TemporaryFile() as errors:
        streams = {"stdin": feed, "stdout": subprocess.PIPE, "stderr": errors}
        with _started(command, limits, **streams) as process:
            if process.stdout is None:
                raise RuntimeError("the process has no pipe")
            output, over = _TimedPipe(process.stdout), Event()

            def end_when_stalled() -> None:
                while not over.wait(min(1.0, most / 4)):
                    since = output.since
                    if since is not None and time.monotonic() - since > most:
                        problems.append(_stalled(path, most))
                        process.kill()
                        return

            if stdin is not None:
                Thread(target=_feed, args=(process, stdin, problems), daemon=True).start()
            if most < math.inf:
                Thread(target=end_when_stalled, daemon=True).start()
            try:
                with io.BufferedReader(output, 1 << 16) as pipe:
                    yield pipe
                    status = process.wait(most)
            except subprocess.TimeoutExpired:
                raise _stalled(path, most) from None
            finally:  # also when the reader stops early
                over.set()
                process.stdout.close()
        if problems:
            raise problems[0]
        messages = _text(errors)
        # For a file cut in the middle of a packet the status is 0, with one of these messages.
        if status != 0 or "partial file" in messages or "ended prematurely" in messages:
            raise _limit_error(path, messages, status, limits) or _damaged(path, messages)


@contextmanager
def _started(command: list[str], limits: Limits, **streams: Any) -> Iterator[_Process]:
    """Start a process with limits, and end it when the block is left."""
    process: _Process = subprocess.Popen(command, **streams)
    try:
        # Set from outside: code between fork and exec is unsafe where threads run.
        if sys.platform == "linux" and "-hwaccel" not in command:  # a driver maps a lot of memory
            import resource

            pairs = ((resource.RLIMIT_DATA, limits.memory), (resource.RLIMIT_CPU, limits.seconds))
            for kind, most in pairs:
                with suppress(ProcessLookupError):  # it has ended
                    held = (n for n in resource.prlimit(process.pid, kind) if n >= 0)
                    resource.prlimit(process.pid, kind, (min([most, *held]),) * 2)
        yield process
    finally:
        process.kill()
        process.wait()


def _text(errors: IO[bytes]) -> str:
    """Return the beginning of what ffmpeg has printed."""
    errors.seek(0)
    return errors.read(1 << 22).decode(errors="replace")


class _TimedPipe(io.RawIOBase):
    """A pipe that records since when its reader waits."""

    def __init__(self, pipe: Any) -> None:
        super().__init__()
        self._pipe = pipe.raw
        self.since: float | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self.since = time.monotonic()
        try:
            count: int | None = self._pipe.readinto(buffer)
            return count
        finally:
            self.since = None


def _feed(process: _Process, blocks: Iterator[bytes], problems: list[ClipError]) -> None:
    if process.stdin is None:
        raise RuntimeError("the process has no pipe")
    with suppress(BrokenPipeError, ValueError):  # ffmpeg has ended; its messages name the reason
        try:
            for block in blocks:
                process.stdin.write(block)
        except ClipError as error:
            problems.append(error)
        finally:  # or ffmpeg waits for ever
            process.stdin.close()


def _limit_error(path: Path, messages: str, status: int, limits: Limits) -> CostError | None:
    """Return the error for a process that has reached one of its limits; None when it has not."""
    if status == -9:
        return CostError(
            f"{path}: ffmpeg was killed: it took more than {limits.seconds:,} s of processor "
            "time, or the machine has no memory left",
            "Cut the clip, or write it again",
        )
    # Where an allocation fails unchecked, the process dies of a signal (SIGSEGV, SIGABRT).
    if status in (-6, -11) or any(message in messages for message in NO_MEMORY):
        return CostError(
            f"{path}: ffmpeg failed for want of memory: it may take {limits.memory / 1e9:.1f} GB",
            "Write the clip again: ffmpeg -i CLIP -r 25 NEW.mp4",
        )
    return None


def _stalled(path: Path, patience: float) -> CostError:
    return CostError(
        f"{path}: ffmpeg hung: nothing came for {patience:g} s, and it was ended",
        "Write the clip again; where a disk or a file server is that slow, copy it nearer",
    )


def _damaged(path: Path, messages: str) -> ClipError:
    """Return the error for a file with which ffmpeg failed, by its messages."""
    if claimed := re.search(r"Picture size (\d+)x(\d+)", messages):
        return ffmpeg.too_large(path, f"{claimed[1]} x {claimed[2]}")
    for message, change in CHANGES.items():
        if message in messages:
            problem = f"{path}: the {change} changes in the stream"
            return ClipError(problem, f"Write it again with one: ffmpeg -i {path.name} CLIP.mp4")
    problem = f"{path}: damaged or truncated: {reason_of(messages, path)}"
    return ClipError(problem, "Write the clip again; a truncated download must be repeated")
