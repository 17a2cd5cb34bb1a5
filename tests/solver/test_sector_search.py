"""The order in which sectors are solved and how each is decided, with made-up energies."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from sqd_mpi.solver.sector_search import (
    CAUTION,
    DECISIVE,
    LARGEST_FIRST_ORDER,
    LEAST_DIMENSION,
    LEAST_STIRRED,
    SAME_ENERGY,
    SHARP,
    SLOW,
    SectorSearch,
    decides,
)
from sqd_mpi.solver.sectors import Aim, ModelShare, Outlook, SectorTask, Verdict

EVEN, ODD, OTHER = (0, 1), (0, -1), (1, 1)
LARGE = 10 * LEAST_DIMENSION


def outlook(*energies: float, edge: float = 10.0, dimension: int = 5000, size: int = 300) -> Outlook:
    """What a model space says that is a small part of its sector."""
    return Outlook(np.array(energies), edge, dimension, size)


def step(*energies, norms=0.5, first_order=0.1, corrections=-0.01, iteration=1):
    """A step of the eigensolver."""
    ones = np.ones(len(energies))
    return SimpleNamespace(
        iteration=iteration, energies=np.array(energies), residual_norms=norms * ones,
        first_order_norms=first_order * ones, corrections=corrections * ones,
    )  # fmt: skip


def share(*energies: float, outside: float = 0.02, above: float = 0.0, depth: float = 0.2) -> ModelShare:
    """Model states and main determinants that lie so much above eigenvectors."""
    return ModelShare(np.full(len(energies), outside), np.array(energies) + above, np.array(energies) + depth)


def pairs(*energies: float, converged: bool = True, norms: float = 0.0) -> SimpleNamespace:
    """What search needs of eigenpairs."""
    ones = np.ones(len(energies))
    return SimpleNamespace(energies=np.array(energies), converged=converged * ones > 0, residual_norms=norms * ones)


def solve(
    search: SectorSearch, task: SectorTask, *energies: float, converged: bool = True, norms: float = 0.0,
    **of_share: float,
) -> bool:  # fmt: skip
    """Note what iterations to their end have led to."""
    found = pairs(*energies, converged=converged, norms=norms)
    return search.note(task, Verdict.OPEN, found, share(*energies, **of_share))


def test_sectors_of_the_lowest_model_states_come_first_the_lowest_before_the_others():
    search = SectorSearch({EVEN: outlook(-1.0, -0.5), ODD: outlook(-2.0, -0.9, -0.8), OTHER: outlook(-0.1)}, 3)
    task = search.next()
    assert task == SectorTask(ODD, 2, Aim.ROOTS) and search.bound == np.inf
    assert solve(search, task, -2.1, -0.95)
    task = search.next()
    assert task == SectorTask(EVEN, 1, Aim.ROOTS)
    assert solve(search, task, -1.05)
    assert search.bound == -0.95


def test_a_large_sector_far_above_is_left_out_by_its_model_space_where_that_is_believed():
    missed = 0.1
    search = SectorSearch({EVEN: outlook(-2.0, -1.0), ODD: outlook(-1.5, dimension=LARGE)}, 1)
    solve(search, search.next(), -2.0 - missed, outside=0.02)
    assert search.believed and search.next() is None
    decisions = search.decisions()
    assert {sector: found.how for sector, found in decisions.items()} == {EVEN: "model", ODD: "model"}
    assert decisions[EVEN][::2] == (-2.1, 1) and decisions[ODD][::2] == (-1.5, 0)
    assert all(found.proven for found in decisions.values())


@pytest.mark.parametrize(
    ("outside", "size", "above"),
    [(0.3, 300, 1.0), (0.02, 4000, 1.0), (0.02, 300, 0.99 * CAUTION * 0.1)],
    ids=["weight outside", "nearly the whole sector", "too near"],
)
def test_a_model_space_that_says_too_little_leaves_nothing_out(outside, size, above):
    bound = -2.1
    search = SectorSearch(
        {EVEN: outlook(-2.0, bound + above, size=size), ODD: outlook(bound + above, dimension=LARGE)}, 1
    )
    solve(search, search.next(), bound, outside=outside)
    seen = []
    while (task := search.next()) is not None:
        seen.append((task.sector, task.count, task.aim))
        assert search.judge(task, step(*[bound] * (task.count - 1), -1.0, norms=1e-3), None) is Verdict.ABOVE
    assert sorted(seen) == [(ODD, 1, Aim.GUARD), (EVEN, 2, Aim.GUARD)]
    assert {found.how for found in search.decisions().values()} == {"ritz"}


@pytest.mark.parametrize(("edge", "depth"), [(-2.05, 0.0), (-1.0, 1.2 / CAUTION)])
def test_a_determinant_outside_that_lies_low_keeps_a_sector_open(edge, depth):
    """Or would, if it were lowered like the main determinants of the states that are known."""
    search = SectorSearch({EVEN: outlook(-2.0, -1.0), ODD: outlook(-1.0, edge=edge, dimension=LARGE)}, 1)
    solve(search, search.next(), -2.1, depth=depth)
    assert search.next() == SectorTask(ODD, 1, Aim.GUARD)


def test_what_was_missed_is_the_distance_to_the_model_state_that_a_root_is_like():
    """Here the lowest root is that of the second model state."""
    search = SectorSearch({EVEN: outlook(-2.0, -1.5), ODD: outlook(-1.8, dimension=LARGE)}, 1)
    solve(search, search.next(), -2.05, above=0.55)
    assert search.next() == SectorTask(ODD, 1, Aim.GUARD)


def test_a_small_sector_is_looked_at_even_where_the_model_space_is_believed():
    search = SectorSearch({EVEN: outlook(-2.0, -1.0), ODD: outlook(-1.0)}, 1)
    solve(search, search.next(), -2.1)
    task = search.next()
    assert task == SectorTask(ODD, 1, Aim.LOOK)
    assert search.judge(task, step(-1.1), None) is Verdict.ABOVE
    assert search.next() is None and search.decisions()[ODD].how == "ritz"


def test_a_look_that_shows_a_large_first_order_vector_calls_for_random_vectors():
    search = SectorSearch({EVEN: outlook(-2.0, -1.0), ODD: outlook(-1.0)}, 1)
    solve(search, search.next(), -2.1)
    look = search.next()
    verdict = search.judge(look, step(-1.1, first_order=0.5), None)
    assert verdict is Verdict.UNCLEAR
    assert not search.note(look, verdict, pairs(-1.1, converged=False), share(-1.1, outside=0.2))
    assert search.next() == SectorTask(ODD, 1, Aim.GUARD)
    # The norm says nothing where iterations began from a stored vector; its weight outside does.
    assert search.judge(look, step(-1.1, first_order=1e-6), share(-1.1, outside=0.5)) is Verdict.UNCLEAR


def test_a_large_correction_keeps_a_look_going():
    search = SectorSearch({EVEN: outlook(-2.0, -1.0), ODD: outlook(-1.0)}, 1)
    solve(search, search.next(), -2.1)
    look = search.next()
    assert search.judge(look, step(-1.1, corrections=-1.0 / CAUTION), None) is Verdict.OPEN
    assert solve(search, look, -2.3) and search.bound == -2.3  # it was the lowest state after all
    assert search.decisions()[ODD].n_found == 1


def test_a_guard_decides_by_its_residual_and_finds_roots_one_by_one():
    search = SectorSearch({EVEN: outlook(-2.0, -1.9, -1.8)}, 3)
    solve(search, search.next(), -2.1, -1.6, -1.5, outside=0.4)
    task = search.next()
    assert task == SectorTask(EVEN, 4, Aim.GUARD)
    assert search.judge(task, step(-2.1, -1.6, -1.5, -1.0, norms=2 * DECISIVE * 0.5), None) is Verdict.OPEN
    assert solve(search, task, -2.1, -1.6, -1.5, -1.8)  # one was missed
    assert search.bound == -1.6
    task = search.next()
    assert task == SectorTask(EVEN, 5, Aim.GUARD)
    assert not solve(search, task, -2.1, -1.8, -1.6, -1.5, -1.2)
    assert search.next() is None and search.decisions()[EVEN].how == "ritz"


def test_a_guard_that_finds_the_highest_wanted_root_has_found_the_lowest_of_what_was_not_known():
    search = SectorSearch({EVEN: outlook(-2.0, -1.9, -1.8)}, 1)
    solve(search, search.next(), -2.1, outside=0.4)
    assert solve(search, search.next(), -2.1, -2.2) and search.bound == -2.2
    assert search.next() is None and search.decisions()[EVEN].how == "ritz"


def stirred(search: SectorSearch, *energies: float, norms: float = 0.1 * SHARP) -> None:
    """Solve the next sector by iterations into which random vectors came at the second step."""
    task = search.next()
    for number, first_order in ((1, 0.3), (2, 0.5 * (SLOW + 1) * 0.3)):
        now = step(*energies, iteration=number, first_order=first_order)
        search.judge(task, now, None)
        assert search.to_stir(task, now) is (number == 2)
    search.stirred(task.sector)
    now = step(*energies, iteration=20, first_order=norms, norms=norms)
    search.judge(task, now, None)
    assert not search.to_stir(task, now)
    assert solve(search, task, *energies, norms=norms, outside=0.4)


def test_stirred_iterations_that_have_converged_leave_no_state_below_their_highest_root():
    search = SectorSearch({EVEN: outlook(-2.0, -1.9, -1.8), ODD: outlook(-1.0)}, 2)
    stirred(search, -2.1, -1.5)
    assert search.next().sector == ODD and search.decisions()[EVEN].how == "ritz"
    # A root of another sector that lies higher asks for what may lie between.
    search = SectorSearch({EVEN: outlook(-2.0, -1.7), ODD: outlook(-1.8)}, 2)
    stirred(search, -2.1)
    stirred(search, -1.8)
    assert search.next() == SectorTask(EVEN, 2, Aim.GUARD)
    assert search.decisions()[ODD].how == "ritz"


def test_stirred_iterations_that_have_hardly_converged_do_not_count():
    search = SectorSearch({EVEN: outlook(-2.0, -1.9)}, 1)
    stirred(search, -2.1, norms=2 * SHARP)
    assert search.next() == SectorTask(EVEN, 2, Aim.GUARD)


@pytest.mark.parametrize(
    ("first_order", "then"),
    [(0.9 * LARGEST_FIRST_ORDER, 0.9 * SLOW), (0.5 * LEAST_STIRRED, 1.0)],
    ids=["quick", "all but converged"],
)
def test_iterations_that_are_quick_or_all_but_converged_are_not_stirred(first_order, then):
    search = SectorSearch({EVEN: outlook(-2.0, -1.9)}, 1)
    task = search.next()
    for number in (1, 2, 3):
        now = step(-2.1, iteration=number, first_order=first_order * then ** (number - 1))
        search.judge(task, now, None)
        assert not search.to_stir(task, now)


@pytest.mark.parametrize(
    ("first_order", "of_share", "expected"),
    [
        (2 * LEAST_STIRRED, {"outside": 0.5}, True),
        (2 * LEAST_STIRRED, {"above": 0.5}, True),
        (2 * LEAST_STIRRED, {"depth": 9.0}, True),
        (0.5 * LEAST_STIRRED, {"outside": 0.5}, False),
        (2 * LEAST_STIRRED, {}, False),
    ],
    ids=["weight outside", "much missed", "low determinants outside", "all but converged", "believed"],
)
def test_stored_vectors_are_stirred_where_their_sector_would_have_to_be_guarded(first_order, of_share, expected):
    search = SectorSearch({EVEN: outlook(-2.05, -1.5)}, 1)
    task, stored = search.next(), share(-2.1, **of_share)
    for number in (1, 2):  # how far they come in a step says nothing
        now = step(-2.1, first_order=first_order, iteration=number)
        search.judge(task, now, stored)
        assert search.to_stir(task, now) is expected


def test_iterations_are_stirred_at_once_where_the_model_space_is_nearly_the_whole_sector():
    search = SectorSearch({EVEN: outlook(-2.0, -1.9, dimension=400)}, 1)
    task, now = search.next(), step(-2.1, first_order=2 * LEAST_STIRRED)
    search.judge(task, now, None)
    assert search.to_stir(task, now)


def test_what_was_stirred_says_nothing_of_iterations_that_begin_anew():
    """As those in which roots are converged together, one of which a look from a model state has brought."""
    search = SectorSearch({EVEN: outlook(-2.0, -1.7), ODD: outlook(-1.8)}, 2)
    stirred(search, -2.1)
    stirred(search, -1.75)
    task = SectorTask(EVEN, 2, Aim.ROOTS)
    search.judge(task, step(-2.1, -1.8, norms=1e-9, first_order=1e-9), share(-2.1, -1.8))
    assert not search.state()[EVEN].stirred and solve(search, task, -2.1, -1.8, outside=0.4)
    assert search.bound == -1.8 and search.next() == SectorTask(EVEN, 3, Aim.GUARD)


def test_iterations_far_from_an_eigenvector_are_stirred_at_once():
    search = SectorSearch({EVEN: outlook(-2.0, -1.9)}, 1)
    task, now = search.next(), step(-2.1, first_order=1.01 * LARGEST_FIRST_ORDER)
    search.judge(task, now, None)
    assert search.to_stir(task, now)


def test_a_root_that_a_guard_finds_below_known_ones_takes_its_place_among_them():
    """It comes last, behind those that were known, and it alone is judged."""
    search = SectorSearch({EVEN: outlook(-2.0, -1.9, -1.8)}, 2)
    solve(search, search.next(), -2.1, -1.5, outside=0.4)
    task = search.next()
    assert search.judge(task, step(-2.1, -1.5, -1.6, norms=1e-9), None) is Verdict.OPEN
    wanted = np.array([True, True, False])
    found = -2.1, -1.5, -1.6
    assert search.note(task, Verdict.OPEN, pairs(*found), share(*found), wanted)
    assert search.bound == -1.5  # the new one is not wanted
    assert search.next() == SectorTask(EVEN, 4, Aim.GUARD)


def test_a_copy_of_the_highest_wanted_state_need_not_be_found():
    search = SectorSearch({EVEN: outlook(-2.0, -1.9), ODD: outlook(-1.0)}, 1)
    solve(search, search.next(), -2.1, outside=0.4)
    while (task := search.next()) is not None:
        solve(search, task, *[-2.1] * (task.count - 1), -2.1 + 2 * SAME_ENERGY)
    assert search.bound == -2.1 and all(found.proven for found in search.decisions().values())


@pytest.mark.parametrize("aim", [Aim.ROOTS, Aim.GUARD])
def test_iterations_that_end_too_early_are_not_proven(aim):
    search = SectorSearch({EVEN: outlook(-2.0, -1.9), ODD: outlook(-1.0)}, 1)
    solve(search, search.next(), -2.1, outside=0.4, converged=aim is Aim.GUARD)
    if aim is Aim.GUARD:
        task = search.next()
        assert task.aim is Aim.GUARD
        solve(search, task, *[-2.1] * (task.count - 1), -1.5, converged=False)
    assert not search.decisions()[EVEN if aim is Aim.ROOTS else task.sector].proven


def test_exact_model_spaces_decide_and_give_their_roots():
    exact = Outlook(np.array([-1.9, -1.7, -1.2]), np.inf, 3, 3)
    search = SectorSearch({EVEN: outlook(-2.0, -1.0), ODD: exact}, 2)
    for _ in range(2):
        task = search.next()
        assert task.aim is Aim.ROOTS
        solve(search, task, *([-2.1] if task.sector == EVEN else [-1.9]))
    assert search.decisions()[ODD].how == "exact"
    assert search.decisions()[ODD].n_found == 1


def test_every_state_of_a_sector_known_settles_it():
    search = SectorSearch({EVEN: Outlook(np.array([-1.0, -0.5]), np.inf, 2, 2)}, 2)
    solve(search, search.next(), -1.0, -0.5)
    assert search.next() is None and search.decisions()[EVEN].how == "solved"


def test_roots_that_are_not_wanted_do_not_count():
    search = SectorSearch({EVEN: outlook(-2.0, -1.9, -1.8)}, 1)
    task = search.next()
    search.note(task, Verdict.OPEN, pairs(-2.1), share(-2.1, outside=0.4), np.array([False]))
    assert search.bound == np.inf
    task = search.next()
    both = share(-2.1, -2.0, outside=0.4)
    search.note(task, Verdict.OPEN, pairs(-2.1, -2.0), both, np.array([False, True]))
    assert search.bound == -2.0 and search.next() is None  # a guard has found it


def test_what_was_decided_can_be_taken_up_again():
    outlooks = {EVEN: outlook(-2.0, -1.0), ODD: outlook(-1.0), OTHER: outlook(-0.9)}
    first = SectorSearch(outlooks, 1)
    solve(first, first.next(), -2.1)
    first.judge(first.next(), step(-1.1), None)
    again = SectorSearch(outlooks, 1)
    for sector, known in first.state().items():
        if known.n_found:
            again.found(sector, np.array([-2.1]), share(-2.1))
        again.restore(sector, known)
    assert again.next() == first.next() == SectorTask(OTHER, 1, Aim.LOOK)


def test_that_no_state_lies_below_is_taken_up_again():
    outlooks = {EVEN: outlook(-2.0, -1.9)}
    first, again = (SectorSearch(outlooks, 1) for _ in range(2))
    stirred(first, -2.1)
    again.found(EVEN, np.array([-2.1]), share(-2.1, outside=0.4))
    again.restore(EVEN, first.state()[EVEN])
    assert again.next() is None


def test_what_decides():
    assert decides(-1.0, DECISIVE * 0.99, -2.0) and not decides(-1.0, DECISIVE * 1.01, -2.0)
    assert not decides(-2.5, 0.0, -2.0) and not decides(-1.0, 0.0, np.inf)
