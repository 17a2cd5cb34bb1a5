"""One page on a run: what was found, how it came about, and where the time went."""

from sqd_mpi.app.report.page import write_report

__all__ = ["write_report"]
