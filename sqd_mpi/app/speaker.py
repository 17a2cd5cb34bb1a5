"""Which process of a job speaks about what all of its processes find, such as a wrong option, before MPI has started.

Variables of launchers do not tell: in a task farm every process has a number and is alone, and a shell inside a job has
one as well. They only tell where it is worth asking MPI. Whoever gets no answer speaks: rather several times than not
at all.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sqd_mpi.log import tell
from sqd_mpi.resources import PACKAGE

if TYPE_CHECKING:
    from sqd_mpi.distribution.ranks import Ranks

# Numbers that launchers give their processes: of MPICH and its kin, PMIx, Open MPI, MVAPICH, Intel MPI, Slurm, Cray's
# two launchers, IBM's and Flux.
_NUMBERS = (
    "PMI_RANK", "PMI_ID", "PMIX_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK", "MPI_LOCALRANKID", "SLURM_PROCID",
    "ALPS_APP_PE", "PALS_RANKID", "JSM_NAMESPACE_RANK", "FLUX_TASK_RANK",
)  # fmt: skip
# How long a rank with bad input waits for the others to report the same, before it ends them.
AGREEMENT_SECONDS, _NAP_SECONDS = 5.0, 0.001
# How long MPI may take to start, to say who speaks, and to end.
_LIMIT_SECONDS = 25.0
_FAREWELL_SECONDS = 0.5  # for what a rank says, before it ends the others
_SPEAK, _BE_SILENT = "speak", "be silent"


def refuse(sentence: str, collective: bool) -> None:
    """Print an error once for all processes of the job, if that is possible.

    Args:
        sentence: what is wrong.
        collective: whether all processes of a job use MPI with this command; for others MPI is not asked.
    """
    with speaking(collective) as mine:
        if mine:
            tell(sentence, "sqd_mpi: error:", "red")


@contextmanager
def speaking(collective: bool) -> Iterator[bool]:
    """Give whether this process says what all processes of its job find; what it says is said inside.

    Where MPI does not run, a child process starts it in the place of this one, as it may fail, print or wait for ever.

    Args:
        collective: whether all processes of a job come here, or to the start of MPI.
    """
    from sqd_mpi.distribution import mpi

    rank = mpi.started_rank()
    if rank is not None:
        yield rank == 0
    elif not collective or not any(name in os.environ for name in _NUMBERS):
        yield True
    else:
        program = "import sys; sys.path.insert(0, sys.argv[1]); from sqd_mpi.app import speaker; speaker.answer()"
        # Descriptors stay open, as launchers talk to MPI through some of them.
        with subprocess.Popen(
            [sys.executable, "-c", program, str(PACKAGE.parent)], stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, close_fds=False, text=True, errors="replace",
        ) as child:  # fmt: skip
            limit = threading.Timer(_LIMIT_SECONDS, child.kill)
            limit.daemon = True
            limit.start()
            yield _word(child) != _BE_SILENT
            child.wait()
            limit.cancel()


def _word(child: subprocess.Popen[str]) -> str:
    """What a child process answers, nothing if it ends without an answer."""
    assert child.stdout is not None
    words = (line.strip() for line in child.stdout)
    return next((word for word in words if word in (_SPEAK, _BE_SILENT)), "")


def answer() -> None:
    """Start MPI and prints whether this rank speaks; one that is alone with its error then ends the job."""
    from sqd_mpi.distribution import mpi
    from sqd_mpi.distribution.ranks import ranks_of

    ranks = ranks_of(mpi.world())
    together = all_arrive(ranks)
    print(_SPEAK if ranks.rank == 0 or not together else _BE_SILENT, flush=True)
    if not together:
        time.sleep(_FAREWELL_SECONDS)
        mpi.abort(2)


def all_arrive(ranks: Ranks) -> bool:
    """Whether all ranks come here soon; if not, the error is this rank's alone and the others would hang."""
    return ranks.meet(_NAP_SECONDS, AGREEMENT_SECONDS)
