"""Numba intrinsics for many inner products of packed rows: the transposed operation of the products in `simd`.

Addresses, counts and rows are those of `simd`. Eight inner products are on their way at a time; their eight vectors of
partial sums are folded into one vector of results by three rounds of shuffles.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from sqd_mpi.backends.cpu.simd import (
    _DOUBLE,
    _INT,
    _INT32,
    LANES,
    VECTOR_BYTES,
    _declare,
    _int,
    _load,
    _load_vector,
    _loop,
    _multiply_add,
    _pointer,
    _shuffle,
    _store,
    _switch_on_width,
    kind_of,
)

_DOUBLES = kind_of(types.float64)


def _fold(builder: Any, vectors: list[Any]) -> Any:
    """One vector whose lane i is the sum of the lanes of vectors[i]."""
    for step in (1, 2, 4):
        low = [lane if lane & step == 0 else lane - step + LANES for lane in range(LANES)]
        high = [lane + step if lane & step == 0 else lane + LANES for lane in range(LANES)]
        vectors = [
            builder.fadd(_shuffle(builder, a, b, low), _shuffle(builder, a, b, high))
            for a, b in zip(vectors[::2], vectors[1::2], strict=True)
        ]
    return vectors[0]


def _sum_of_lanes(builder: Any, vector: Any) -> Any:
    kind = ir.FunctionType(_DOUBLE, [_DOUBLE, _DOUBLES.vector])
    function = _declare(builder, "llvm.vector.reduce.fadd.v8f64", kind)
    return builder.call(function, [ir.Constant(_DOUBLE, -0.0), vector], fastmath=("reassoc",))


def _inner_products(
    builder: Any,
    first: Any,
    last: Any,
    left: list[Any],
    row: Callable[[Any], Any],
    take_eight: Callable[[Any, Any], None],
    take_one: Callable[[Any, Any], None],
) -> None:
    """Emit the loop over first:last; row(k) gives the address of the right row, take_* emit the use of the results."""

    def product(k: Any) -> Any:
        address = row(k)
        total = builder.fmul(left[0], _load_vector(builder, _DOUBLES, address))
        for v in range(1, len(left)):
            right = _load_vector(builder, _DOUBLES, builder.add(address, _int(VECTOR_BYTES * v)))
            total = _multiply_add(builder, _DOUBLES, left[v], right, total)
        return total

    def eight(k: Any, _: list[Any]) -> list[Any]:
        take_eight(k, _fold(builder, [product(builder.add(k, _int(s))) for s in range(LANES)]))
        return []

    def one(k: Any, _: list[Any]) -> list[Any]:
        take_one(k, _sum_of_lanes(builder, product(k)))
        return []

    following, _ = _loop(builder, first, last, LANES, [], eight)
    _loop(builder, following, last, 1, [], one)


@intrinsic
def dot_row_table(typingctx, width, first, last, entries, left, factors, matrix, table):
    """table[hi(k)] += sum over lanes of factors left G[lo(k), :], k in first:last; (lo, hi) int32 halves of entries[k].

    left, factors: addresses of two rows; factors holds the sign of every lane.
    """
    signature = types.void(*[types.int64] * 8)

    def codegen(context, builder, signature, arguments):
        width, first, last, entries, left, factors, matrix, table = arguments

        def emit(w: int) -> None:
            # The left row with the signs of its lanes, in registers.
            rows = []
            for v in range(w):
                value = _load_vector(builder, _DOUBLES, builder.add(left, _int(VECTOR_BYTES * v)))
                factor = _load_vector(builder, _DOUBLES, builder.add(factors, _int(VECTOR_BYTES * v)))
                rows.append(builder.fmul(value, factor))

            def both(k: Any) -> Any:
                return _load(builder, builder.add(entries, builder.mul(k, _int(8))), _INT)

            def row(k: Any) -> Any:
                column = builder.and_(both(k), _int(0xFFFFFFFF))
                return builder.add(matrix, builder.mul(column, _int(VECTOR_BYTES * w)))

            # Products go to the table one by one: eight may have the same place.
            def take_one(k: Any, value: Any) -> None:
                place = builder.add(table, builder.mul(builder.lshr(both(k), _int(32)), _int(8)))
                pointer = _pointer(builder, place, _DOUBLE)
                builder.store(builder.fadd(builder.load(pointer, align=8), value), pointer, align=8)

            def take_eight(k: Any, values: Any) -> None:
                for s in range(LANES):
                    take_one(builder.add(k, _int(s)), builder.extract_element(values, ir.Constant(_INT32, s)))

            _inner_products(builder, first, last, rows, row, take_eight, take_one)

        _switch_on_width(builder, width, emit)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def dot_row_value(typingctx, width, first, last, column, left, matrix, value):
    """value[k] += left . G[column[k], :] for k in first:last; column int32, value float64."""
    signature = types.void(*[types.int64] * 7)

    def codegen(context, builder, signature, arguments):
        width, first, last, column, left, matrix, value = arguments

        def emit(w: int) -> None:
            rows = [_load_vector(builder, _DOUBLES, builder.add(left, _int(VECTOR_BYTES * v))) for v in range(w)]

            def row(k: Any) -> Any:
                number = _load(builder, builder.add(column, builder.mul(k, _int(4))), _INT32)
                return builder.add(matrix, builder.mul(builder.zext(number, _INT), _int(VECTOR_BYTES * w)))

            def place(k: Any) -> Any:
                return builder.add(value, builder.mul(k, _int(8)))

            def take_one(k: Any, result: Any) -> None:
                pointer = _pointer(builder, place(k), _DOUBLE)
                builder.store(builder.fadd(builder.load(pointer, align=8), result), pointer, align=8)

            def take_eight(k: Any, results: Any) -> None:
                _store(builder, _DOUBLES, builder.fadd(_load_vector(builder, _DOUBLES, place(k)), results), place(k))

            _inner_products(builder, first, last, rows, row, take_eight, take_one)

        _switch_on_width(builder, width, emit)
        return context.get_dummy_value()

    return signature, codegen
