"""Numba intrinsics on vectors of eight float64, written as LLVM IR that names no instruction set.

Every function takes plain addresses and counts (int64). LLVM keeps a vector in one AVX-512 register and splits it on
other machines (two registers with AVX2, four with NEON). A multiply-add becomes one fused instruction where the machine
has it.

A "row" below is `width` vectors (8 width float64) of a packed matrix G, 64 width bytes apart.
numba's cache does not notice edits of this file: delete the package's __pycache__ after one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import llvmlite.binding
import numba
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

LANES = 8
VECTOR_BYTES = 8 * LANES

_INT = ir.IntType(64)
_INT32 = ir.IntType(32)
_DOUBLE = ir.DoubleType()
_VECTOR = ir.VectorType(_DOUBLE, LANES)
_MASK = ir.VectorType(ir.IntType(1), LANES)


def _widest_row() -> int:
    """Vectors of accumulators that fit the vector registers: 8 with AVX-512 (32 long registers), else 4."""
    features = numba.config.CPU_FEATURES
    if features is None:
        return 8 if llvmlite.binding.get_host_cpu_features().get("avx512f", False) else 4
    return 8 if "+avx512f" in features else 4


MAX_WIDTH = _widest_row()
# Two rows of results at a time share every vector of G that is loaded; both must fit the registers.
MAX_TWIN_WIDTH = 8 if MAX_WIDTH == 8 else 2


def _int(value: int) -> Any:
    return ir.Constant(_INT, value)


def _pointer(builder: Any, address: Any, kind: Any) -> Any:
    return builder.inttoptr(address, kind.as_pointer())


def _load(builder: Any, address: Any, kind: Any) -> Any:
    """Load without any assumption on alignment beyond that of the elements."""
    size = 4 if kind == _INT32 else 8
    return builder.load(_pointer(builder, address, kind), align=size)


def _store(builder: Any, value: Any, address: Any) -> None:
    builder.store(value, _pointer(builder, address, _VECTOR), align=8)


def _broadcast(builder: Any, scalar: Any) -> Any:
    kind = ir.VectorType(scalar.type, LANES)
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), scalar, ir.Constant(_INT32, 0))
    zeros = ir.Constant(ir.VectorType(_INT32, LANES), [0] * LANES)
    return builder.shuffle_vector(first, ir.Constant(kind, ir.Undefined), zeros)


def _shuffle(builder: Any, left: Any, right: Any, order: list[int]) -> Any:
    return builder.shuffle_vector(left, right, ir.Constant(ir.VectorType(_INT32, LANES), order))


def _multiply_add(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """Return a b + c, fused where the machine can (llvm.fma would call a library routine elsewhere)."""
    function = _declare(builder, "llvm.fmuladd.v8f64", ir.FunctionType(_VECTOR, [_VECTOR] * 3))
    return builder.call(function, [a, b, c])


def _masked_load(builder: Any, address: Any, mask: Any) -> Any:
    kind = ir.FunctionType(_VECTOR, [_VECTOR.as_pointer(), _INT32, _MASK, _VECTOR])
    function = _declare(builder, "llvm.masked.load.v8f64.p0", kind)
    pointer = _pointer(builder, address, _VECTOR)
    return builder.call(function, [pointer, ir.Constant(_INT32, 8), mask, ir.Constant(_VECTOR, [0.0] * LANES)])


def _masked_store(builder: Any, value: Any, address: Any, mask: Any) -> None:
    kind = ir.FunctionType(ir.VoidType(), [_VECTOR, _VECTOR.as_pointer(), _INT32, _MASK])
    function = _declare(builder, "llvm.masked.store.v8f64.p0", kind)
    builder.call(function, [value, _pointer(builder, address, _VECTOR), ir.Constant(_INT32, 8), mask])


def _declare(builder: Any, name: str, kind: Any) -> Any:
    known = builder.module.globals.get(name)
    return known if known is not None else ir.Function(builder.module, kind, name)


def _first_lanes(builder: Any, count: Any) -> Any:
    """Mask of the lanes 0 ... count - 1."""
    numbers = ir.Constant(ir.VectorType(_INT, LANES), list(range(LANES)))
    return builder.icmp_signed("<", numbers, _broadcast(builder, count))


def _transpose(builder: Any, rows: list[Any]) -> list[Any]:
    """Transpose 8 x 8 in three rounds of eight two-input shuffles."""
    for step in (1, 2, 4):
        low = [lane if lane & step == 0 else lane - step + LANES for lane in range(LANES)]
        high = [lane + step if lane & step == 0 else lane + LANES for lane in range(LANES)]
        out = list(rows)
        for i in range(LANES):
            if i & step == 0:
                out[i] = _shuffle(builder, rows[i], rows[i + step], low)
                out[i + step] = _shuffle(builder, rows[i], rows[i + step], high)
        rows = out
    return rows


def _loop(
    builder: Any, first: Any, last: Any, step: int, carried: list[Any], body: Callable[[Any, list[Any]], list[Any]]
) -> tuple[Any, list[Any]]:
    """Emit `for i in range(first, last, step)` while i + step <= last, with values carried from turn to turn.

    Returns the i at which it stopped and the carried values.
    """
    # Nothing is done where not even the first step fits.
    before = builder.block
    inside = builder.append_basic_block("loop")
    after = builder.append_basic_block("after")
    limit = builder.sub(last, _int(step))
    builder.cbranch(builder.icmp_signed("<=", first, limit), inside, after)

    # A phi has its value from before the first turn, or from the turn before.
    builder.position_at_end(inside)
    i = builder.phi(_INT)
    phis = [builder.phi(value.type) for value in carried]
    results = body(i, list(phis))
    following = builder.add(i, _int(step))
    end_of_body = builder.block
    builder.cbranch(builder.icmp_signed("<=", following, limit), inside, after)
    i.add_incoming(first, before)
    i.add_incoming(following, end_of_body)
    for phi, start, result in zip(phis, carried, results, strict=True):
        phi.add_incoming(start, before)
        phi.add_incoming(result, end_of_body)

    # The same two ways lead to the end.
    builder.position_at_end(after)
    stopped = builder.phi(_INT)
    stopped.add_incoming(first, before)
    stopped.add_incoming(following, end_of_body)
    out = []
    for start, result in zip(carried, results, strict=True):
        phi = builder.phi(start.type)
        phi.add_incoming(start, before)
        phi.add_incoming(result, end_of_body)
        out.append(phi)
    return stopped, out


def _switch_on_width(builder: Any, width: Any, emit: Callable[[int], None], widest: int = MAX_WIDTH) -> None:
    """Emit one version for each width 1 ... `widest` and the choice between them."""
    done = builder.append_basic_block("done")
    choice = builder.switch(width, done)
    for w in range(1, widest + 1):
        case = builder.append_basic_block(f"width{w}")
        choice.add_case(_int(w), case)
        builder.position_at_end(case)
        emit(w)
        builder.branch(done)
    builder.position_at_end(done)


def _accumulate(
    builder: Any, w: int, first: Any, last: Any, sums: list[Any], entry: Callable[[Any], tuple[Any, Any]]
) -> list[Any]:
    """Add the product of entries first:last with their rows of G to the `w` vectors `sums`, kept in registers.

    `entry(k)` emits the loads of entry k; it returns a function from vector number to coefficient, and the address of
    the row. Narrow rows have several sets of sums: a multiply-add takes four cycles, so four must be on their way at
    any time.
    """
    n_sets = {1: 4, 2: 2, 3: 2}.get(w, 1)
    zero = ir.Constant(_VECTOR, [0.0] * LANES)

    def add(k: Any, accumulators: list[Any]) -> list[Any]:
        coefficient, row = entry(k)
        out = []
        for v, accumulator in enumerate(accumulators):
            vector = _load(builder, builder.add(row, _int(VECTOR_BYTES * v)), _VECTOR)
            out.append(_multiply_add(builder, coefficient(v), vector, accumulator))
        return out

    def several(k: Any, accumulators: list[Any]) -> list[Any]:
        out = []
        for s in range(n_sets):
            out += add(builder.add(k, _int(s)), accumulators[s * w : (s + 1) * w])
        return out

    if n_sets > 1:
        first, sets = _loop(builder, first, last, n_sets, sums + [zero] * ((n_sets - 1) * w), several)
        sums = sets[:w]
        for s in range(1, n_sets):
            sums = [builder.fadd(a, b) for a, b in zip(sums, sets[s * w : (s + 1) * w], strict=True)]
    return _loop(builder, first, last, 1, sums, add)[1]


@intrinsic
def table_row(typingctx, width, stride, first, last, entries, table, matrix, out):
    """out[:] = sum over k in first:last of table[hi(k)] G[lo(k), :], with (lo, hi) the int32 halves of entries[k].

    Rows of G are `stride` bytes apart, so that the first vectors of each can be left out.
    """
    signature = types.void(*[types.int64] * 8)

    def codegen(context, builder, signature, arguments):
        width, stride, first, last, entries, table, matrix, out = arguments

        def emit(w: int) -> None:
            def entry(k: Any) -> tuple[Any, Any]:
                both = _load(builder, builder.add(entries, builder.mul(k, _int(8))), _INT)
                column = builder.and_(both, _int(0xFFFFFFFF))
                place = builder.lshr(both, _int(32))
                value = _load(builder, builder.add(table, builder.mul(place, _int(8))), _DOUBLE)
                coefficient = _broadcast(builder, value)
                return lambda v: coefficient, builder.add(matrix, builder.mul(column, stride))

            sums = _accumulate(builder, w, first, last, [ir.Constant(_VECTOR, [0.0] * LANES)] * w, entry)
            for v in range(w):
                _store(builder, sums[v], builder.add(out, _int(VECTOR_BYTES * v)))

        _switch_on_width(builder, width, emit)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def table_row_twin(typingctx, width, stride, first, last, entries, table, matrix, out, out_second):
    """`table_row` with two tables, interleaved (table[2 k], table[2 k + 1]): two results for one load of G."""
    signature = types.void(*[types.int64] * 9)

    def codegen(context, builder, signature, arguments):
        width, stride, first, last, entries, table, matrix, out, out_second = arguments

        def emit(w: int) -> None:
            n_sets = 2 if w == 1 else 1
            zero = ir.Constant(_VECTOR, [0.0] * LANES)

            # One entry: both factors, and every vector of its row of G once.
            def add(k: Any, sums: list[Any]) -> list[Any]:
                both = _load(builder, builder.add(entries, builder.mul(k, _int(8))), _INT)
                place = builder.add(table, builder.mul(builder.lshr(both, _int(32)), _int(16)))
                factor = _broadcast(builder, _load(builder, place, _DOUBLE))
                second = _broadcast(builder, _load(builder, builder.add(place, _int(8)), _DOUBLE))
                row = builder.add(matrix, builder.mul(builder.and_(both, _int(0xFFFFFFFF)), stride))
                out = list(sums)
                for v in range(w):
                    vector = _load(builder, builder.add(row, _int(VECTOR_BYTES * v)), _VECTOR)
                    out[v] = _multiply_add(builder, factor, vector, sums[v])
                    out[w + v] = _multiply_add(builder, second, vector, sums[w + v])
                return out

            def several(k: Any, sums: list[Any]) -> list[Any]:
                return add(k, sums[: 2 * w]) + add(builder.add(k, _int(1)), sums[2 * w :])

            # A second set of sums where one vector alone would leave the multiply-adds waiting for each other.
            start, sums = first, [zero] * (2 * w)
            if n_sets == 2:
                start, sets = _loop(builder, first, last, 2, [zero] * (4 * w), several)
                sums = [builder.fadd(a, b) for a, b in zip(sets[: 2 * w], sets[2 * w :], strict=True)]
            sums = _loop(builder, start, last, 1, sums, add)[1]
            for v in range(w):
                _store(builder, sums[v], builder.add(out, _int(VECTOR_BYTES * v)))
                _store(builder, sums[w + v], builder.add(out_second, _int(VECTOR_BYTES * v)))

        _switch_on_width(builder, width, emit, MAX_TWIN_WIDTH)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def value_row(typingctx, width, first, last, column, value, matrix, shift, out):
    """out[:] += sum over k in first:last of value[k] G[column[k] - shift, :]; column int32, value float64."""
    signature = types.void(*[types.int64] * 8)

    def codegen(context, builder, signature, arguments):
        width, first, last, column, value, matrix, shift, out = arguments

        def emit(w: int) -> None:
            base = builder.sub(matrix, builder.mul(shift, _int(VECTOR_BYTES * w)))

            def entry(k: Any) -> tuple[Any, Any]:
                number = _load(builder, builder.add(column, builder.mul(k, _int(4))), _INT32)
                row = builder.mul(builder.zext(number, _INT), _int(VECTOR_BYTES * w))
                scalar = _load(builder, builder.add(value, builder.mul(k, _int(8))), _DOUBLE)
                coefficient = _broadcast(builder, scalar)
                return lambda v: coefficient, builder.add(base, row)

            places = [builder.add(out, _int(VECTOR_BYTES * v)) for v in range(w)]
            sums = _accumulate(builder, w, first, last, [_load(builder, place, _VECTOR) for place in places], entry)
            for total, place in zip(sums, places, strict=True):
                _store(builder, total, place)

        _switch_on_width(builder, width, emit)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def field_row(typingctx, width, first, last, entries, value, sign, field, matrix, out):
    """out[:] += sum over k in first:last of (value[k] + sign[k] F[hi(k), :]) G[lo(k), :]; F has rows like G."""
    signature = types.void(*[types.int64] * 9)

    def codegen(context, builder, signature, arguments):
        width, first, last, entries, value, sign, field, matrix, out = arguments

        def emit(w: int) -> None:
            row_bytes = _int(VECTOR_BYTES * w)

            def entry(k: Any) -> tuple[Any, Any]:
                both = _load(builder, builder.add(entries, builder.mul(k, _int(8))), _INT)
                column = builder.and_(both, _int(0xFFFFFFFF))
                place = builder.add(field, builder.mul(builder.lshr(both, _int(32)), row_bytes))
                at = builder.mul(k, _int(8))
                scalar = _broadcast(builder, _load(builder, builder.add(value, at), _DOUBLE))
                factor = _broadcast(builder, _load(builder, builder.add(sign, at), _DOUBLE))

                def coefficient(v: int) -> Any:
                    part = _load(builder, builder.add(place, _int(VECTOR_BYTES * v)), _VECTOR)
                    return _multiply_add(builder, factor, part, scalar)

                return coefficient, builder.add(matrix, builder.mul(column, row_bytes))

            places = [builder.add(out, _int(VECTOR_BYTES * v)) for v in range(w)]
            sums = _accumulate(builder, w, first, last, [_load(builder, place, _VECTOR) for place in places], entry)
            for total, place in zip(sums, places, strict=True):
                _store(builder, total, place)

        _switch_on_width(builder, width, emit)
        return context.get_dummy_value()

    return signature, codegen


def _lane_addresses(builder: Any, rows: Any, shift: Any) -> list[Any]:
    return [
        builder.add(_load(builder, builder.add(rows, _int(8 * lane)), _INT), shift) for lane in range(LANES)
    ]  # fmt: skip


def _full_or_partial(builder: Any, count: Any, emit: Callable[[Any], None]) -> None:
    """Emit a version for eight columns (mask None) and one for fewer (a mask)."""
    partial = builder.icmp_signed("<", count, _int(LANES))
    with builder.if_else(partial, likely=False) as (then, otherwise):
        with then:
            emit(_first_lanes(builder, count))
        with otherwise:
            emit(None)


@intrinsic
def gather_tile(typingctx, rows, shift, count, out, stride):
    """Transpose `count` <= 8 columns of eight rows: out[j, lane] = row[lane][j], out rows `stride` bytes apart.

    rows: address of eight int64 addresses; shift: bytes added to each.
    """
    signature = types.void(*[types.int64] * 5)

    def codegen(context, builder, signature, arguments):
        rows, shift, count, out, stride = arguments
        addresses = _lane_addresses(builder, rows, shift)

        def emit(mask: Any) -> None:
            if mask is None:
                lines = [_load(builder, address, _VECTOR) for address in addresses]
            else:
                lines = [_masked_load(builder, address, mask) for address in addresses]
            for j, column in enumerate(_transpose(builder, lines)):
                _store(builder, column, builder.add(out, builder.mul(stride, _int(j))))

        _full_or_partial(builder, count, emit)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def scatter_tile(typingctx, tile, stride, signs, rows, shift, count):
    """Transpose back and add `count` <= 8 columns: row[lane][j] += signs[lane] tile[j, lane]."""
    signature = types.void(*[types.int64] * 6)

    def codegen(context, builder, signature, arguments):
        tile, stride, signs, rows, shift, count = arguments
        columns = [_load(builder, builder.add(tile, builder.mul(stride, _int(j))), _VECTOR) for j in range(LANES)]
        lines = _transpose(builder, columns)
        addresses = _lane_addresses(builder, rows, shift)
        factors = [
            _broadcast(builder, _load(builder, builder.add(signs, _int(8 * lane)), _DOUBLE)) for lane in range(LANES)
        ]

        # One lane after the other: two lanes may be the same row (the row that pads a group).
        def emit(mask: Any) -> None:
            for address, factor, line in zip(addresses, factors, lines, strict=True):
                if mask is None:
                    _store(builder, _multiply_add(builder, factor, line, _load(builder, address, _VECTOR)), address)
                else:
                    old = _masked_load(builder, address, mask)
                    _masked_store(builder, _multiply_add(builder, factor, line, old), address, mask)

        _full_or_partial(builder, count, emit)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def scatter_tile_ragged(typingctx, tile, stride, signs, rows, shift, stops, first):
    """`scatter_tile` of the columns from `first` on in rows that end at different columns (stops: int64 a lane)."""
    signature = types.void(*[types.int64] * 7)

    def codegen(context, builder, signature, arguments):
        tile, stride, signs, rows, shift, stops, first = arguments
        columns = [_load(builder, builder.add(tile, builder.mul(stride, _int(j))), _VECTOR) for j in range(LANES)]
        lines = _transpose(builder, columns)
        addresses = _lane_addresses(builder, rows, shift)
        for lane, (address, line) in enumerate(zip(addresses, lines, strict=True)):
            factor = _broadcast(builder, _load(builder, builder.add(signs, _int(8 * lane)), _DOUBLE))
            stop = _load(builder, builder.add(stops, _int(8 * lane)), _INT)
            mask = _first_lanes(builder, builder.sub(stop, first))
            old = _masked_load(builder, address, mask)
            _masked_store(builder, _multiply_add(builder, factor, line, old), address, mask)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def copy_vector(typingctx, source, count, out):
    """out[0:8] = source[0:count] and zeros."""
    signature = types.void(*[types.int64] * 3)

    def codegen(context, builder, signature, arguments):
        source, count, out = arguments

        def emit(mask: Any) -> None:
            line = _load(builder, source, _VECTOR) if mask is None else _masked_load(builder, source, mask)
            _store(builder, line, out)

        _full_or_partial(builder, count, emit)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def store_vector(typingctx, source, count, out):
    """out[0:count] = source[0:count], count <= 8; source has eight elements."""
    signature = types.void(*[types.int64] * 3)

    def codegen(context, builder, signature, arguments):
        source, count, out = arguments
        line = _load(builder, source, _VECTOR)

        def emit(mask: Any) -> None:
            if mask is None:
                _store(builder, line, out)
            else:
                _masked_store(builder, line, out, mask)

        _full_or_partial(builder, count, emit)
        return context.get_dummy_value()

    return signature, codegen


def _prefetch(builder: Any, address: Any, writes: bool) -> None:
    byte = ir.IntType(8)
    kind = ir.FunctionType(ir.VoidType(), [byte.as_pointer(), _INT32, _INT32, _INT32])
    function = _declare(builder, "llvm.prefetch.p0", kind)
    options = [ir.Constant(_INT32, number) for number in (int(writes), 3 if writes else 2, 1)]
    builder.call(function, [_pointer(builder, address, byte), *options])


@intrinsic(prefer_literal=True)
def prefetch_line(typingctx, address, to_write):
    """Ask for one cache line: for writing into the first-level cache, else into the second."""
    signature = types.void(types.int64, types.boolean)
    writes = isinstance(to_write, types.BooleanLiteral) and to_write.literal_value

    def codegen(context, builder, signature, arguments):
        _prefetch(builder, arguments[0], writes)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic(prefer_literal=True)
def prefetch_lanes(typingctx, rows, shift, to_write):
    """Ask for the cache line at `shift` bytes of each of eight rows (for writing: into the first-level cache)."""
    signature = types.void(types.int64, types.int64, types.boolean)
    writes = isinstance(to_write, types.BooleanLiteral) and to_write.literal_value

    def codegen(context, builder, signature, arguments):
        rows, shift, _ = arguments
        for address in _lane_addresses(builder, rows, shift):
            _prefetch(builder, address, writes)
        return context.get_dummy_value()

    return signature, codegen
