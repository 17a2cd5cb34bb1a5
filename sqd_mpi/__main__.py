"""`python -m sqd_mpi`: one failing rank ends the job, never a hang."""

from __future__ import annotations

import sys
import traceback


def run() -> int:
    """Runs the command line and returns its exit code.

    An error that nobody caught is printed with the rank, and ends all ranks of the job.
    """
    try:
        from sqd_mpi.cli import main

        return main()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
        if code != 0:
            _end_all_ranks(code)
        return code
    except BaseException:
        from sqd_mpi.cli import launcher_rank

        # One write, so that the lines of several failing ranks do not mix.
        sys.stderr.write(f"[rank {launcher_rank()}] {traceback.format_exc()}")
        _end_all_ranks(1)
        return 1


def _end_all_ranks(code: int) -> None:
    """Aborts the job if MPI was started."""
    grid = sys.modules.get("sqd_mpi.grid")
    if grid is not None:
        grid.abort(code)


if __name__ == "__main__":
    sys.exit(run())
