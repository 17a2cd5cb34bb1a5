"""The table of docs/pyscf.md on what of PySCF works: every row is tried in every column, against PySCF's own code."""

from __future__ import annotations

import copy
import os
import pickle
import re
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from pyscf import fci, lib, mcscf, mrpt
from pyscf.fci import cistring, direct_spin1

from sqd_mpi.adapters.pyscf import SubspaceSolver
from sqd_mpi.errors import InputError
from tests.support.paths import ROOT
from tests.support.pyscf_reference import (
    PartOfStrings,
    boron_hydride,
    flat,
    hydrogens,
    oxygen_unrestricted,
    part_of_strings,
)

PAGE = ROOT / "docs" / "pyscf.md"
NORB, NELEC = 4, (2, 2)
Maker = Callable[..., Any]
Row = Callable[[Maker], Any]

ROWS: dict[str, Row] = {}


def row(name: str) -> Callable[[Row], Row]:
    """Put a check under the first cell of its row."""

    def keep(check: Row) -> Row:
        ROWS[name] = check
        return check

    return keep


@pytest.fixture(scope="module", autouse=True)
def one_pyscf_thread():
    with lib.with_omp_threads(1):
        yield


def casci(make: Maker, mean_field: Any = None, **settings: Any) -> Any:
    """CASCI of four hydrogen atoms with a solver."""
    mc = mcscf.CASCI(mean_field if mean_field is not None else hydrogens(), NORB, NELEC)
    mc.fcisolver = make(**settings)
    return mc


def casscf(make: Maker) -> Any:
    """CASSCF of four hydrogen atoms with a solver, tightly converged."""
    mc = mcscf.CASSCF(hydrogens(), NORB, NELEC)
    mc.fcisolver = make()
    mc.conv_tol, mc.conv_tol_grad = 1e-10, 1e-6
    return mc


def averaged(make: Maker) -> Any:
    """The same over the two lowest singlets."""
    return casscf(make).state_average_([0.5, 0.5]).fix_spin_(ss=0)


def solved(make: Maker, **settings: Any) -> tuple[Any, Any, Any]:
    """(solver, vector, arguments) after a CASCI."""
    mc = casci(make, **settings)
    mc.kernel()
    return mc.fcisolver, mc.ci, (NORB, NELEC)


def integrals() -> tuple[Any, Any]:
    """Of the active space."""
    mc = mcscf.CASCI(hydrogens(), NORB, NELEC)
    return mc.get_h1eff()[0], mc.get_h2eff()


@row("`mcscf.CASCI`")
def _(make: Maker) -> Any:
    return casci(make).kernel()[0]


@row("`mcscf.CASSCF`")
def _(make: Maker) -> Any:
    return casscf(make).kernel()[0]


@row("`mc.mc2step()`")
def _(make: Maker) -> Any:
    return casscf(make).mc2step()[0]


@row("`mc.newton()`")
def _(make: Maker) -> Any:
    return casscf(make).newton().kernel()[0]


@row("`mc.state_average_(weights)`")
def _(make: Maker) -> Any:
    mc = casscf(make).state_average_([0.7, 0.3])
    mc.kernel()
    return mc.e_tot, mc.e_states, mc.fcisolver.states_spin_square(mc.ci, NORB, NELEC)[0]


@row("`mc.state_average_mix_(solvers, weights)`")
def _(make: Maker) -> Any:
    solvers = make(), make()
    solvers[1].spin = 2
    mc = casscf(make).state_average_mix_(solvers, [0.5, 0.5])
    mc.kernel()
    return mc.e_tot, mc.e_states


@row("`mc.state_specific_(state)`")
def _(make: Maker) -> Any:
    return casscf(make).state_specific_(1).kernel()[0]


@row("`mc.fix_spin_(ss=...)`")
def _(make: Maker) -> Any:
    mc = casci(make)
    mc.fcisolver.nroots = 2
    mc.fix_spin_(ss=2, shift=1.0)
    mc.kernel()
    return mc.e_tot, [mc.fcisolver.spin_square(ci, NORB, NELEC)[0] for ci in mc.ci]


@row("`mc.natorb = True`")
def _(make: Maker) -> Any:
    mc = casci(make)
    mc.natorb = True
    mc.kernel()
    return mc.e_tot, np.diag(mc.fcisolver.make_rdm1(mc.ci, NORB, NELEC))


@row("`mc.cas_natorb()`")
def _(make: Maker) -> Any:
    mc = casci(make)
    mc.kernel()
    return mc.cas_natorb()[2]


@row("`mc.analyze()`")
def _(make: Maker) -> Any:
    mc = casci(make)
    mc.kernel()
    with open(os.devnull, "w") as nowhere:
        mc.verbose, mc.stdout = lib.logger.DEBUG, nowhere
        return mc.analyze()


@row("`mc.chk_ci = True`")
def _(make: Maker) -> Any:
    mc = casscf(make)
    with lib.NamedTemporaryFile() as file:
        mc.chk_ci, mc.chkfile = True, file.name
        mc.kernel()
        kept = np.array(lib.chkfile.load(file.name, "mcscf/ci"))
        shape = [cistring.num_strings(NORB, n) for n in NELEC]
        whole = np.zeros(shape)  # a part of the strings is kept as such
        whole[: kept.shape[0], : kept.shape[1]] = kept
        return mc.e_tot, fci.direct_spin1.make_rdm1(whole, NORB, NELEC)


@row("`mc.as_scanner()`")
def _(make: Maker) -> Any:
    scanner = casci(make).as_scanner()
    return [scanner(f"H 0 0 0; H 0 0.1 {height}; H 0.2 0.9 0; H 0 1 1.1") for height in (1.0, 1.1)]


@row("`mc.nuc_grad_method()`")
def _(make: Maker) -> Any:
    mc = casci(make)
    mc.kernel()
    return mc.nuc_grad_method().kernel()


@row("`mc.nuc_grad_method()` of one averaged state")
def _(make: Maker) -> Any:
    mc = averaged(make)
    mc.kernel()
    return mc.nuc_grad_method().kernel(state=1)


@row("`mc.nac_method()`")
def _(make: Maker) -> Any:
    pytest.importorskip("pyscf.nac")
    mc = averaged(make)
    mc.kernel()
    return np.abs(mc.nac_method().kernel(state=(0, 1)))


@row("`mrpt.NEVPT(mc)`")
def _(make: Maker) -> Any:
    mc = casci(make, boron_hydride())  # with core orbitals
    mc.kernel()
    return mrpt.NEVPT(mc).kernel()


@row("`mcpdft.CASSCF`")
def _(make: Maker) -> Any:
    mcpdft = pytest.importorskip("pyscf.mcpdft")
    mc = mcpdft.CASCI(hydrogens(), "tPBE", NORB, NELEC, grids_level=1)
    mc.fcisolver = make()
    return mc.kernel()[0]


@row("`mcscf.UCASCI`")
def _(make: Maker) -> Any:
    mc = mcscf.UCASCI(oxygen_unrestricted(), 6, 8)
    mc.fcisolver = make(of_two_spins=True)
    mc.kernel()
    active = [each[:, n : n + 6] for each, n in zip(mc.mo_coeff, mc.ncore, strict=True)]
    space = mc.ncas, mc.nelecas
    if isinstance(mc.fcisolver, SubspaceSolver):
        square = mc.fcisolver.spin_square(mc.ci, *space, active, mc._scf.get_ovlp())
    else:
        square = fci.spin_op.spin_square(mc.ci, *space, active, mc._scf.get_ovlp())
    return mc.e_tot, square, mc.make_rdm1s()


@row("`mcscf.UCASSCF`")
def _(make: Maker) -> Any:
    mc = mcscf.UCASSCF(oxygen_unrestricted(), 6, 8)
    mc.fcisolver = make(of_two_spins=True)
    mc.conv_tol = 1e-10
    return mc.kernel()[0]


@row("`mcscf.spin_square(mc)`")
def _(make: Maker) -> Any:
    mc = casci(make)
    mc.kernel()
    return mcscf.spin_square(mc)


@row("`copy.copy(mc)`, `copy.deepcopy(mc)`, `pickle.dumps(mc.ci)`")
def _(make: Maker) -> Any:
    mc = casci(make)
    mc.kernel()
    whole = np.abs(np.asarray(pickle.loads(pickle.dumps(mc.ci))))
    return copy.copy(mc).kernel()[0], copy.deepcopy(mc).kernel()[0], whole.max(), np.linalg.norm(whole)


@row("`solver.to_gpu()`")
def _(make: Maker) -> Any:
    return make().to_gpu()


@row("`make_rdm1`, `make_rdm1s`, `make_rdm2`, `make_rdm12`, `make_rdm12s`")
def _(make: Maker) -> Any:
    solver, ci, space = solved(make)
    names = ("make_rdm1", "make_rdm1s", "make_rdm2", "make_rdm12", "make_rdm12s")
    return [getattr(solver, name)(ci, *space) for name in names]


@row("`trans_rdm1`, `trans_rdm1s`, `trans_rdm12`, `trans_rdm12s`")
def _(make: Maker) -> Any:
    solver, (bra, ket), space = solved(make, nroots=2)
    names = ("trans_rdm1", "trans_rdm1s", "trans_rdm12", "trans_rdm12s")
    return [np.abs(each) for name in names for each in flat(getattr(solver, name)(bra, ket, *space))]


@row("`make_rdm123`, `make_rdm123s`, `make_rdm1234`, `make_rdm1234s`")
def _(make: Maker) -> Any:
    solver, ci, space = solved(make)
    names = ("make_rdm123", "make_rdm123s", "make_rdm1234", "make_rdm1234s")
    known = [name for name in names if hasattr(direct_spin1.FCISolver, name)]
    return [getattr(solver, name)(ci, *space) for name in known]


@row("`spin_square`")
def _(make: Maker) -> Any:
    solver, ci, space = solved(make)
    return solver.spin_square(ci, *space)


@row("`large_ci`")
def _(make: Maker) -> Any:
    solver, ci, space = solved(make)
    found = []
    for strings, threshold in ((True, 0.02), (False, 0.02), (True, 1.0)):
        for value, alpha, beta in solver.large_ci(ci, *space, threshold, strings):
            found += [abs(value), *([int(alpha, 2), int(beta, 2)] if strings else [*alpha, *beta])]
    return found


@row("`absorb_h1e`, `contract_1e`, `contract_2e`, `contract_ss`, `energy`")
def _(make: Maker) -> Any:
    solver, ci, space = solved(make)
    h1e, eri = integrals()
    absorbed = solver.absorb_h1e(h1e, eri, *space, 0.5)
    return (
        absorbed,
        np.abs(solver.contract_1e(h1e, ci, *space)),
        np.abs(solver.contract_2e(absorbed, ci, *space)),
        np.abs(solver.contract_ss(ci, *space)),
        solver.energy(h1e, eri, ci, *space),
    )


@row("`make_hdiag`, `pspace`, `get_init_guess`")
def _(make: Maker) -> Any:
    solver, (h1e, eri) = make(), integrals()
    diagonal = solver.make_hdiag(h1e, eri, NORB, NELEC)
    return diagonal, solver.pspace(h1e, eri, NORB, NELEC)[1], solver.get_init_guess(NORB, NELEC, 2, diagonal)


@row("`transform_ci_for_orbital_rotation`")
def _(make: Maker) -> Any:
    solver, ci, space = solved(make)
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(NORB, NORB)))[0]
    return np.abs(solver.transform_ci_for_orbital_rotation(ci, *space, rotation))


@row("`fci.addons.overlap`, `cre_a`, `des_b`, `transform_ci`")
def _(make: Maker) -> Any:
    _, ci, space = solved(make)
    return (
        fci.addons.overlap(ci, ci, *space),
        np.abs(fci.addons.cre_a(ci, *space, 3)),
        np.abs(fci.addons.des_b(ci, *space, 0)),
        np.abs(fci.addons.transform_ci(ci, NELEC, np.eye(NORB))),
    )


@row("`guess_wfnsym`")
def _(make: Maker) -> Any:
    solver, ci, space = solved(make)
    if not isinstance(solver, SubspaceSolver):
        return [fci.addons.guess_wfnsym(ci, *space, orbsym) for orbsym in (range(NORB), [0, 1, 0, 2])]
    return [solver.guess_wfnsym(*space, ci, np.array(orbsym)) for orbsym in (range(NORB), [0, 1, 0, 2])]


@row("`kernel(ci0=...)`")
def _(make: Maker) -> Any:
    solver, (first, second), space = solved(make, nroots=2)
    problem = (*integrals(), *space)
    return [solver.kernel(*problem, ci0=ci0, nroots=n)[0] for ci0, n in ((first, 1), ([first, second], 2))]


@row("`solver.nroots = 3`")
def _(make: Maker) -> Any:
    mc = casci(make)
    mc.fcisolver.nroots = 3
    return mc.kernel()[0], [float(each) for each in np.atleast_1d(mc.fcisolver.converged)][:1]


@row("`solver.spin = 2`")
def _(make: Maker) -> Any:
    mc = casci(make)
    mc.fcisolver.spin = 2
    mc.kernel()
    return mc.e_tot, mc.fcisolver.make_rdm1s(mc.ci, NORB, NELEC)


@row("`solver.lindep`, `level_shift`, `lessio`")
def _(make: Maker) -> Any:
    mc = casci(make)
    mc.fcisolver.lindep = 1e-12
    return mc.kernel()[0]


@row("`solver.converged`, `eci`, `e_tot`, `ci`")
def _(make: Maker) -> Any:
    mc = casci(make)
    mc.kernel()
    solver = mc.fcisolver
    if isinstance(solver, SubspaceSolver):
        assert solver.converged is True and solver.ci is mc.ci
        return solver.eci, solver.e_tot
    return mc.e_tot, mc.e_tot


def of_pyscf(of_two_spins: bool = False, nroots: int = 1) -> Any:
    """PySCF's solver."""
    solver = fci.direct_uhf.FCI() if of_two_spins else direct_spin1.FCI()
    solver.verbose, solver.nroots, solver.conv_tol, solver.pspace_size = 0, nroots, 1e-14, 400
    return solver


def of_pyscf_in_part(of_two_spins: bool = False, nroots: int = 1) -> Any:
    """The same in a part of the strings."""
    solver = PartOfStrings()
    solver.verbose, solver.nroots = 0, nroots
    return solver


def in_arrays(of_two_spins: bool = False, **settings: Any) -> SubspaceSolver:
    """The solver as it comes."""
    return SubspaceSolver(tol=1e-9, **settings).set(verbose=0)


def distributed(of_two_spins: bool = False, **settings: Any) -> SubspaceSolver:
    """The solver with vectors that are no arrays."""
    return in_arrays(array_limit=1, **settings)


def in_part(of_two_spins: bool = False, **settings: Any) -> SubspaceSolver:
    """The solver in all strings but one of each spin."""

    def strings(norb: int, nelec: tuple[int, int], h1e: Any, eri: Any) -> Any:
        return tuple(part_of_strings(norb, n) for n in nelec)

    return in_arrays(strings=strings, **settings)


COLUMNS = ((of_pyscf, in_arrays), (of_pyscf, distributed), (of_pyscf_in_part, in_part))


@cache
def table() -> dict[str, list[str]]:
    """First cell -> verdicts of the columns."""
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return {each[0]: each[1:] for each in cells if len(each) == len(COLUMNS) + 1}


def test_the_table_has_the_rows_that_are_tried() -> None:
    assert list(table()) == list(ROWS)
    assert {verdict for verdicts in table().values() for verdict in verdicts} == {"yes", "refused"}


@pytest.mark.parametrize("column", range(len(COLUMNS)), ids=["arrays", "distributed", "part"])
@pytest.mark.parametrize("name", ROWS)
def test_a_row(name: str, column: int) -> None:
    verdict, (reference, solver) = table()[name][column], COLUMNS[column]
    if verdict == "refused":
        with pytest.raises(InputError) as refusal:
            ROWS[name](solver)
        assert "\n" not in str(refusal.value)
        return
    found, expected = flat(ROWS[name](solver)), flat(ROWS[name](reference))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=TOLERANCE.get(name, 1e-8), rtol=0)


# What depends on orbitals in first order is as precise as these are converged.
TOLERANCE = {
    "`mc.nuc_grad_method()` of one averaged state": 1e-5,
    "`mc.nac_method()`": 1e-4,
    "`mc.chk_ci = True`": 1e-4,
    "`mc.state_average_(weights)`": 1e-6,
    "`mc.state_average_mix_(solvers, weights)`": 1e-6,
}
