"""What comes from outside while a run goes on: signals, other jobs, and the remains of killed ones."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from sqd_mpi.errors import InputError
from sqd_mpi.files.new_files import behind_links

# How long a killed job may still hold its lock: a launcher can return before its ranks are gone.
_DYING_SECONDS = 5.0
STOP_SIGNALS = (signal.SIGUSR1, signal.SIGTERM)


class StopSignals:
    """While the context lasts, SIGUSR1 and SIGTERM are remembered and do nothing else.

    Handlers run between Python's instructions: a signal waits for the kernel that is running.
    """

    def __init__(self) -> None:
        self.number = 0
        """The last signal that came to this rank, or 0."""
        self.agreed = 0
        """The signal on which all ranks agreed, or 0."""
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        """Set the handlers."""
        self._before = {number: signal.signal(number, self._remember) for number in STOP_SIGNALS}
        return self

    def __exit__(self, *exception: object) -> None:
        """Put the former handlers back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _remember(self, number: int, _: Any) -> None:
        self.number = number


class OutputLock:
    """Keeps other jobs from writing the same output, by a locked file `.NAME.lock` beside it.

    The system frees the lock when this process ends, however it ends. Where the file system knows no locks nothing is
    locked.
    """

    def __init__(self, output: Path) -> None:
        """Locks.

        Args:
            output: the file that only this job may write.

        Raises:
            InputError: another job has it, or the directory is not writable.
        """
        self.path = output.with_name(f".{output.name}.lock")
        self.held = False
        """Whether the lock is held, so that no other job writes this output."""
        deadline = time.monotonic() + _DYING_SECONDS
        while True:
            # Lock it, unless another job does, which may be about to end.
            try:
                self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            except OSError as error:
                raise InputError(f"cannot write {output}: {error.strerror} (directory {output.parent})") from None
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                    return
                holder = os.pread(self._descriptor, 200, 0).decode(errors="replace").strip()
                os.close(self._descriptor)
                if time.monotonic() < deadline:
                    time.sleep(0.1)
                    continue
                raise InputError(f"cannot write {output}: another job is writing it ({holder or 'unknown'})") from None

            # The former holder may have removed the file between the two calls: then this lock protects nothing.
            with suppress(FileNotFoundError):
                if os.stat(self.path).st_ino == os.fstat(self._descriptor).st_ino:
                    break
            os.close(self._descriptor)

        # Say who has it.
        self.held = True
        with suppress(OSError):  # on a full disk the lock holds all the same
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"host {socket.gethostname()}, process {os.getpid()}\n".encode(), 0)

    def remove_remains(self, *outputs: Path) -> None:
        """Remove temporary files of killed jobs: with the lock held nobody can be writing them."""
        if not self.held:
            return
        for output in map(behind_links, outputs):
            for path in output.parent.glob(f".{_escaped(output.name)}.*.tmp"):
                if path.name[len(output.name) + 2 : -len(".tmp")].isdigit():
                    with suppress(OSError):
                        path.unlink()

    def release(self) -> None:
        """Remove the file and frees the lock."""
        if self.held:
            with suppress(OSError):
                self.path.unlink()
            self.held = False
        with suppress(OSError):
            os.close(self._descriptor)


def _escaped(name: str) -> str:
    """A file name for glob, whose special characters stand for themselves."""
    return "".join(f"[{character}]" if character in "*?[" else character for character in name)
