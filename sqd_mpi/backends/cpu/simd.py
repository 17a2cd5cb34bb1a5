"""Numba intrinsics on vectors of 64 bytes, eight float64 or sixteen float32, written as LLVM IR that names no
instruction set.

Every function takes `like`, a number or an array of the type of the elements of its vectors, and else plain addresses
and counts (int64). LLVM keeps a vector in one AVX-512 register and splits it on other machines (two registers with
AVX2, four with NEON). A multiply-add becomes one fused instruction where the machine has it.

A "row" below is `width` vectors of a packed matrix G, 64 width bytes apart. What is kept for both precisions, values of
sparse matrices and signs, is float64 and is rounded on its way into a register.
numba's cache does not notice edits of this file: delete the package's __pycache__ after one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import llvmlite.binding
import numba
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

VECTOR_BYTES = 64
LANES = 8  # of float64

_INT = ir.IntType(64)
_INT32 = ir.IntType(32)
_DOUBLE = ir.DoubleType()


@dataclass(frozen=True)
class Kind:
    """Vectors of one type of elements."""

    scalar: Any
    """LLVM type of an element."""
    name: str
    """Of a vector, as LLVM's functions end."""
    size: int
    """Bytes of an element."""

    @property
    def lanes(self) -> int:
        """Elements of a vector."""
        return VECTOR_BYTES // self.size

    @property
    def vector(self) -> Any:
        """LLVM type of a vector."""
        return ir.VectorType(self.scalar, self.lanes)

    @property
    def mask(self) -> Any:
        """LLVM type of a mask."""
        return ir.VectorType(ir.IntType(1), self.lanes)

    @property
    def zero(self) -> Any:
        """A vector of zeros."""
        return ir.Constant(self.vector, [0.0] * self.lanes)


_KINDS = {types.float64: Kind(_DOUBLE, "v8f64", 8), types.float32: Kind(ir.FloatType(), "v16f32", 4)}


def kind_of(like: Any) -> Kind:
    """The vectors for a numba type of numbers or of arrays of them."""
    return _KINDS[getattr(like, "dtype", like)]


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
    """Load an integer or a float64."""
    return builder.load(_pointer(builder, address, kind), align=4 if kind == _INT32 else 8)


def _load_vector(builder: Any, kind: Kind, address: Any) -> Any:
    """Load without any assumption on alignment beyond that of the elements."""
    return builder.load(_pointer(builder, address, kind.vector), align=kind.size)


def _store(builder: Any, kind: Kind, value: Any, address: Any) -> None:
    builder.store(value, _pointer(builder, address, kind.vector), align=kind.size)


def _broadcast(builder: Any, scalar: Any, lanes: int) -> Any:
    whole = ir.VectorType(scalar.type, lanes)
    first = builder.insert_element(ir.Constant(whole, ir.Undefined), scalar, ir.Constant(_INT32, 0))
    zeros = ir.Constant(ir.VectorType(_INT32, lanes), [0] * lanes)
    return builder.shuffle_vector(first, ir.Constant(whole, ir.Undefined), zeros)


def _factor(builder: Any, kind: Kind, address: Any) -> Any:
    """A float64 of memory in all lanes."""
    value = _load(builder, address, _DOUBLE)
    if kind.scalar != _DOUBLE:
        value = builder.fptrunc(value, kind.scalar)
    return _broadcast(builder, value, kind.lanes)


def _element(builder: Any, kind: Kind, address: Any) -> Any:
    """An element of an array in all lanes."""
    value = builder.load(_pointer(builder, address, kind.scalar), align=kind.size)
    return _broadcast(builder, value, kind.lanes)


def _shuffle(builder: Any, left: Any, right: Any, order: list[int]) -> Any:
    return builder.shuffle_vector(left, right, ir.Constant(ir.VectorType(_INT32, len(order)), order))


def _multiply_add(builder: Any, kind: Kind, a: Any, b: Any, c: Any) -> Any:
    """Return a b + c, fused where the machine can (llvm.fma would call a library routine elsewhere)."""
    function = _declare(builder, f"llvm.fmuladd.{kind.name}", ir.FunctionType(kind.vector, [kind.vector] * 3))
    return builder.call(function, [a, b, c])


def _masked_load(builder: Any, kind: Kind, address: Any, mask: Any) -> Any:
    signature = ir.FunctionType(kind.vector, [kind.vector.as_pointer(), _INT32, kind.mask, kind.vector])
    function = _declare(builder, f"llvm.masked.load.{kind.name}.p0", signature)
    pointer = _pointer(builder, address, kind.vector)
    return builder.call(function, [pointer, ir.Constant(_INT32, kind.size), mask, kind.zero])


def _masked_store(builder: Any, kind: Kind, value: Any, address: Any, mask: Any) -> None:
    signature = ir.FunctionType(ir.VoidType(), [kind.vector, kind.vector.as_pointer(), _INT32, kind.mask])
    function = _declare(builder, f"llvm.masked.store.{kind.name}.p0", signature)
    pointer = _pointer(builder, address, kind.vector)
    builder.call(function, [value, pointer, ir.Constant(_INT32, kind.size), mask])


def _declare(builder: Any, name: str, kind: Any) -> Any:
    known = builder.module.globals.get(name)
    return known if known is not None else ir.Function(builder.module, kind, name)


def _first_lanes(builder: Any, kind: Kind, count: Any) -> Any:
    """Mask of the lanes 0 ... count - 1."""
    numbers = ir.Constant(ir.VectorType(_INT32, kind.lanes), list(range(kind.lanes)))
    # Counts may be below zero and above what 32 bits hold.
    small = _clip(builder, count, kind.lanes)
    return builder.icmp_signed("<", numbers, _broadcast(builder, builder.trunc(small, _INT32), kind.lanes))


def _clip(builder: Any, count: Any, most: int) -> Any:
    """An int64 between 0 and `most`."""
    low = builder.select(builder.icmp_signed("<", count, _int(0)), _int(0), count)
    return builder.select(builder.icmp_signed("<", low, _int(most)), low, _int(most))


def _transpose(builder: Any, kind: Kind, rows: list[Any]) -> list[Any]:
    """Transpose as many rows as a vector has lanes by two-input shuffles: 8 x 8 in three rounds, 16 x 16 in four."""
    lanes = kind.lanes
    step = 1
    while step < lanes:
        low = [lane if lane & step == 0 else lane - step + lanes for lane in range(lanes)]
        high = [lane + step if lane & step == 0 else lane + lanes for lane in range(lanes)]
        out = list(rows)
        for i in range(lanes):
            if i & step == 0:
                out[i] = _shuffle(builder, rows[i], rows[i + step], low)
                out[i + step] = _shuffle(builder, rows[i], rows[i + step], high)
        rows = out
        step *= 2
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
    builder: Any, kind: Kind, w: int, first: Any, last: Any, sums: list[Any], entry: Callable[[Any], tuple[Any, Any]]
) -> list[Any]:
    """Add the product of entries first:last with their rows of G to the `w` vectors `sums`, kept in registers.

    `entry(k)` emits the loads of entry k; it returns a function from vector number to coefficient, and the address of
    the row. Narrow rows have several sets of sums: a multiply-add takes four cycles, so four must be on their way at
    any time.
    """
    n_sets = {1: 4, 2: 2, 3: 2}.get(w, 1)

    def add(k: Any, accumulators: list[Any]) -> list[Any]:
        coefficient, row = entry(k)
        out = []
        for v, accumulator in enumerate(accumulators):
            vector = _load_vector(builder, kind, builder.add(row, _int(VECTOR_BYTES * v)))
            out.append(_multiply_add(builder, kind, coefficient(v), vector, accumulator))
        return out

    def several(k: Any, accumulators: list[Any]) -> list[Any]:
        out = []
        for s in range(n_sets):
            out += add(builder.add(k, _int(s)), accumulators[s * w : (s + 1) * w])
        return out

    if n_sets > 1:
        first, sets = _loop(builder, first, last, n_sets, sums + [kind.zero] * ((n_sets - 1) * w), several)
        sums = sets[:w]
        for s in range(1, n_sets):
            sums = [builder.fadd(a, b) for a, b in zip(sums, sets[s * w : (s + 1) * w], strict=True)]
    return _loop(builder, first, last, 1, sums, add)[1]


@intrinsic
def table_row(typingctx, like, width, stride, first, last, entries, table, matrix, out):
    """out[:] = sum over k in first:last of table[hi(k)] G[lo(k), :], with (lo, hi) the int32 halves of entries[k].

    Rows of G are `stride` bytes apart, so that the first vectors of each can be left out.
    """
    signature, kind = types.void(like, *[types.int64] * 8), kind_of(like)

    def codegen(context, builder, signature, arguments):
        _, width, stride, first, last, entries, table, matrix, out = arguments

        def emit(w: int) -> None:
            def entry(k: Any) -> tuple[Any, Any]:
                both = _load(builder, builder.add(entries, builder.mul(k, _int(8))), _INT)
                column = builder.and_(both, _int(0xFFFFFFFF))
                place = builder.mul(builder.lshr(both, _int(32)), _int(kind.size))
                coefficient = _element(builder, kind, builder.add(table, place))
                return lambda v: coefficient, builder.add(matrix, builder.mul(column, stride))

            sums = _accumulate(builder, kind, w, first, last, [kind.zero] * w, entry)
            for v in range(w):
                _store(builder, kind, sums[v], builder.add(out, _int(VECTOR_BYTES * v)))

        _switch_on_width(builder, width, emit)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def table_row_twin(typingctx, like, width, stride, first, last, entries, table, matrix, out, out_second):
    """`table_row` with two tables, interleaved (table[2 k], table[2 k + 1]): two results for one load of G."""
    signature, kind = types.void(like, *[types.int64] * 9), kind_of(like)

    def codegen(context, builder, signature, arguments):
        _, width, stride, first, last, entries, table, matrix, out, out_second = arguments

        def emit(w: int) -> None:
            n_sets = 2 if w == 1 else 1

            # One entry: both factors, and every vector of its row of G once.
            def add(k: Any, sums: list[Any]) -> list[Any]:
                both = _load(builder, builder.add(entries, builder.mul(k, _int(8))), _INT)
                place = builder.add(table, builder.mul(builder.lshr(both, _int(32)), _int(2 * kind.size)))
                factor = _element(builder, kind, place)
                second = _element(builder, kind, builder.add(place, _int(kind.size)))
                row = builder.add(matrix, builder.mul(builder.and_(both, _int(0xFFFFFFFF)), stride))
                out = list(sums)
                for v in range(w):
                    vector = _load_vector(builder, kind, builder.add(row, _int(VECTOR_BYTES * v)))
                    out[v] = _multiply_add(builder, kind, factor, vector, sums[v])
                    out[w + v] = _multiply_add(builder, kind, second, vector, sums[w + v])
                return out

            def several(k: Any, sums: list[Any]) -> list[Any]:
                return add(k, sums[: 2 * w]) + add(builder.add(k, _int(1)), sums[2 * w :])

            # A second set of sums where one vector alone would leave the multiply-adds waiting for each other.
            start, sums = first, [kind.zero] * (2 * w)
            if n_sets == 2:
                start, sets = _loop(builder, first, last, 2, [kind.zero] * (4 * w), several)
                sums = [builder.fadd(a, b) for a, b in zip(sets[: 2 * w], sets[2 * w :], strict=True)]
            sums = _loop(builder, start, last, 1, sums, add)[1]
            for v in range(w):
                _store(builder, kind, sums[v], builder.add(out, _int(VECTOR_BYTES * v)))
                _store(builder, kind, sums[w + v], builder.add(out_second, _int(VECTOR_BYTES * v)))

        _switch_on_width(builder, width, emit, MAX_TWIN_WIDTH)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def value_row(typingctx, like, width, first, last, column, value, matrix, shift, out):
    """out[:] += sum over k in first:last of value[k] G[column[k] - shift, :]; column int32, value float64."""
    signature, kind = types.void(like, *[types.int64] * 8), kind_of(like)

    def codegen(context, builder, signature, arguments):
        _, width, first, last, column, value, matrix, shift, out = arguments

        def emit(w: int) -> None:
            base = builder.sub(matrix, builder.mul(shift, _int(VECTOR_BYTES * w)))

            def entry(k: Any) -> tuple[Any, Any]:
                number = _load(builder, builder.add(column, builder.mul(k, _int(4))), _INT32)
                row = builder.mul(builder.zext(number, _INT), _int(VECTOR_BYTES * w))
                coefficient = _factor(builder, kind, builder.add(value, builder.mul(k, _int(8))))
                return lambda v: coefficient, builder.add(base, row)

            places = [builder.add(out, _int(VECTOR_BYTES * v)) for v in range(w)]
            sums = _accumulate(
                builder, kind, w, first, last, [_load_vector(builder, kind, place) for place in places], entry
            )
            for total, place in zip(sums, places, strict=True):
                _store(builder, kind, total, place)

        _switch_on_width(builder, width, emit)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def field_row(typingctx, like, width, first, last, entries, value, sign, field, matrix, out):
    """out[:] += sum over k in first:last of (value[k] + sign[k] F[hi(k), :]) G[lo(k), :]; F has rows like G."""
    signature, kind = types.void(like, *[types.int64] * 9), kind_of(like)

    def codegen(context, builder, signature, arguments):
        _, width, first, last, entries, value, sign, field, matrix, out = arguments

        def emit(w: int) -> None:
            row_bytes = _int(VECTOR_BYTES * w)

            def entry(k: Any) -> tuple[Any, Any]:
                both = _load(builder, builder.add(entries, builder.mul(k, _int(8))), _INT)
                column = builder.and_(both, _int(0xFFFFFFFF))
                place = builder.add(field, builder.mul(builder.lshr(both, _int(32)), row_bytes))
                at = builder.mul(k, _int(8))
                scalar = _factor(builder, kind, builder.add(value, at))
                factor = _factor(builder, kind, builder.add(sign, at))

                def coefficient(v: int) -> Any:
                    part = _load_vector(builder, kind, builder.add(place, _int(VECTOR_BYTES * v)))
                    return _multiply_add(builder, kind, factor, part, scalar)

                return coefficient, builder.add(matrix, builder.mul(column, row_bytes))

            places = [builder.add(out, _int(VECTOR_BYTES * v)) for v in range(w)]
            sums = _accumulate(
                builder, kind, w, first, last, [_load_vector(builder, kind, place) for place in places], entry
            )
            for total, place in zip(sums, places, strict=True):
                _store(builder, kind, total, place)

        _switch_on_width(builder, width, emit)
        return context.get_dummy_value()

    return signature, codegen


def _lane_addresses(builder: Any, rows: Any, shift: Any, lanes: int) -> list[Any]:
    return [builder.add(_load(builder, builder.add(rows, _int(8 * lane)), _INT), shift) for lane in range(lanes)]


def _full_or_partial(builder: Any, kind: Kind, count: Any, emit: Callable[[Any], None]) -> None:
    """Emit a version for a vector of columns (mask None) and one for fewer (a mask)."""
    partial = builder.icmp_signed("<", count, _int(kind.lanes))
    with builder.if_else(partial, likely=False) as (then, otherwise):
        with then:
            emit(_first_lanes(builder, kind, count))
        with otherwise:
            emit(None)


@intrinsic
def gather_tile(typingctx, like, rows, shift, count, out, stride):
    """Transpose `count` columns of as many rows as there are lanes: out[j, lane] = row[lane][j].

    count: at most as many columns as lanes; stride: bytes between rows of `out`.
    rows: address of an int64 address for every lane; shift: bytes added to each.
    """
    signature, kind = types.void(like, *[types.int64] * 5), kind_of(like)

    def codegen(context, builder, signature, arguments):
        _, rows, shift, count, out, stride = arguments
        addresses = _lane_addresses(builder, rows, shift, kind.lanes)

        def emit(mask: Any) -> None:
            if mask is None:
                lines = [_load_vector(builder, kind, address) for address in addresses]
            else:
                lines = [_masked_load(builder, kind, address, mask) for address in addresses]
            for j, column in enumerate(_transpose(builder, kind, lines)):
                _store(builder, kind, column, builder.add(out, builder.mul(stride, _int(j))))

        _full_or_partial(builder, kind, count, emit)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def scatter_tile(typingctx, like, tile, stride, signs, rows, shift, count):
    """Transpose back and add `count` columns: row[lane][j] += signs[lane] tile[j, lane]."""
    signature, kind = types.void(like, *[types.int64] * 6), kind_of(like)

    def codegen(context, builder, signature, arguments):
        _, tile, stride, signs, rows, shift, count = arguments
        columns = [
            _load_vector(builder, kind, builder.add(tile, builder.mul(stride, _int(j)))) for j in range(kind.lanes)
        ]
        lines = _transpose(builder, kind, columns)
        addresses = _lane_addresses(builder, rows, shift, kind.lanes)
        factors = [_factor(builder, kind, builder.add(signs, _int(8 * lane))) for lane in range(kind.lanes)]

        # One lane after the other: two lanes may be the same row (the row that pads a group).
        def emit(mask: Any) -> None:
            for address, factor, line in zip(addresses, factors, lines, strict=True):
                if mask is None:
                    _store(
                        builder,
                        kind,
                        _multiply_add(builder, kind, factor, line, _load_vector(builder, kind, address)),
                        address,
                    )
                else:
                    old = _masked_load(builder, kind, address, mask)
                    _masked_store(builder, kind, _multiply_add(builder, kind, factor, line, old), address, mask)

        _full_or_partial(builder, kind, count, emit)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def scatter_tile_ragged(typingctx, like, tile, stride, signs, rows, shift, stops, first):
    """`scatter_tile` of the columns from `first` on in rows that end at different columns (stops: int64 a lane)."""
    signature, kind = types.void(like, *[types.int64] * 7), kind_of(like)

    def codegen(context, builder, signature, arguments):
        _, tile, stride, signs, rows, shift, stops, first = arguments
        columns = [
            _load_vector(builder, kind, builder.add(tile, builder.mul(stride, _int(j)))) for j in range(kind.lanes)
        ]
        lines = _transpose(builder, kind, columns)
        addresses = _lane_addresses(builder, rows, shift, kind.lanes)
        for lane, (address, line) in enumerate(zip(addresses, lines, strict=True)):
            factor = _factor(builder, kind, builder.add(signs, _int(8 * lane)))
            stop = _load(builder, builder.add(stops, _int(8 * lane)), _INT)
            mask = _first_lanes(builder, kind, builder.sub(stop, first))
            old = _masked_load(builder, kind, address, mask)
            _masked_store(builder, kind, _multiply_add(builder, kind, factor, line, old), address, mask)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def copy_vector(typingctx, like, source, count, out):
    """out = source[0:count] and zeros, one vector."""
    signature, kind = types.void(like, *[types.int64] * 3), kind_of(like)

    def codegen(context, builder, signature, arguments):
        _, source, count, out = arguments

        def emit(mask: Any) -> None:
            line = _load_vector(builder, kind, source) if mask is None else _masked_load(builder, kind, source, mask)
            _store(builder, kind, line, out)

        _full_or_partial(builder, kind, count, emit)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def store_vector(typingctx, like, source, count, out):
    """out[0:count] = source[0:count], source is a vector."""
    signature, kind = types.void(like, *[types.int64] * 3), kind_of(like)

    def codegen(context, builder, signature, arguments):
        _, source, count, out = arguments
        line = _load_vector(builder, kind, source)

        def emit(mask: Any) -> None:
            if mask is None:
                _store(builder, kind, line, out)
            else:
                _masked_store(builder, kind, line, out, mask)

        _full_or_partial(builder, kind, count, emit)
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
def prefetch_lanes(typingctx, like, rows, shift, to_write):
    """Ask for the cache line at `shift` bytes of the rows of all lanes (for writing: into the first-level cache)."""
    signature, kind = types.void(like, types.int64, types.int64, types.boolean), kind_of(like)
    writes = isinstance(to_write, types.BooleanLiteral) and to_write.literal_value

    def codegen(context, builder, signature, arguments):
        _, rows, shift, _ = arguments
        for address in _lane_addresses(builder, rows, shift, kind.lanes):
            _prefetch(builder, address, writes)
        return context.get_dummy_value()

    return signature, codegen
