"""How often connections between strings are searched."""

from __future__ import annotations

from sqd_mpi.problem import excitations


def count_searches(monkeypatch) -> list[int]:
    """The degrees of all searches for connections from now on."""
    plain, degrees = excitations._connected, []

    def counted(bra, ket, norb, degree, method):
        degrees.append(degree)
        return plain(bra, ket, norb, degree, method)

    monkeypatch.setattr(excitations, "_connected", counted)
    return degrees
