"""`python -m sqd_mpi`: one failing rank ends the job, never a hang."""

from __future__ import annotations

import sys
import traceback

from sqd_mpi.log import MessageStream, open_closed_streams, settle, tell


def run() -> int:
    """Run the command line and return its exit code.

    An error that nobody caught is printed with the rank, and ends all ranks of the job.
    """
    open_closed_streams()
    try:
        return _run()
    finally:
        settle()


def _run() -> int:
    try:
        from sqd_mpi.app.cli import main

        return main()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        if isinstance(stop.code, str):
            tell(stop.code)
        if code != 0:
            _end_all_ranks(code)
        return code
    except BaseException:
        # One write, so that the lines of several failing ranks do not mix.
        stream = MessageStream()
        stream.write(f"{_rank()}{traceback.format_exc()}")
        stream.flush()
        _end_all_ranks(1)
        return 1


def _rank() -> str:
    """The number of this rank as text, nothing where MPI was not started."""
    mpi = sys.modules.get("sqd_mpi.distribution.mpi")
    rank = None if mpi is None else mpi.started_rank()
    return "" if rank is None else f"[rank {rank}] "


def _end_all_ranks(code: int) -> None:
    """Abort the job if MPI was started."""
    mpi = sys.modules.get("sqd_mpi.distribution.mpi")
    if mpi is not None:
        mpi.abort(code)


if __name__ == "__main__":
    sys.exit(run())
