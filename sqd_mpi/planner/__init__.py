"""Plans a run before it starts: work, memory, messages and time of every process grid, by counting connections."""

from sqd_mpi.planner.connections import order_strings
from sqd_mpi.planner.data_sheets import assumed_device, rank_bytes
from sqd_mpi.planner.gpu_memory import most_bytes
from sqd_mpi.planner.memory import MemoryLimits, matrix_bytes, predict_memory
from sqd_mpi.planner.prediction import ASSUMED_SIGMAS, GridPlan, predict
from sqd_mpi.planner.problem import Problem
from sqd_mpi.planner.search import RANKS, Plan, make_plan, shapes_of
from sqd_mpi.planner.whole_solve import Choice, choose_backend, named_profiles, predict_solve

__all__ = [
    "ASSUMED_SIGMAS",
    "RANKS",
    "Choice",
    "GridPlan",
    "MemoryLimits",
    "Plan",
    "Problem",
    "assumed_device",
    "choose_backend",
    "make_plan",
    "matrix_bytes",
    "most_bytes",
    "named_profiles",
    "order_strings",
    "predict",
    "predict_memory",
    "predict_solve",
    "rank_bytes",
    "shapes_of",
]
