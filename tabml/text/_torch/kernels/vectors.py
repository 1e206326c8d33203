"""Sixteen float32 side by side, as a type for functions that numba compiles: LLVM makes of it what the processor has.

Compilers turn plain loops over packed weights into code that is several times as slow, so what is within them is said here.
Addresses are integers; nothing is checked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

LANES = 16

_BYTE, _SHORT, _INT, _FLOAT = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.FloatType()
_FLOATS = ir.VectorType(_FLOAT, LANES)


class _Lanes(types.Type):
    def __init__(self) -> None:
        super().__init__(f"float32 x {LANES}")


_lanes = _Lanes()


@register_model(_Lanes)
class _Model(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _FLOATS)


def _operation(result: Any, *of: Any) -> Callable[[Callable[..., Any]], Any]:
    """A function for compiled code, from one that builds LLVM's instructions for its arguments."""

    def made(build: Callable[..., Any]) -> Any:
        def generate(context: Any, builder: Any, _: Any, given: Any) -> Any:
            value = build(builder, *given)
            return context.get_dummy_value() if result is types.void else value

        found = result(*of), generate
        typed: Any = {  # numba reads the number of arguments off a signature
            1: lambda context, x: found,
            2: lambda context, x, y: found,
            3: lambda context, x, y, z: found,
        }[len(of)]
        typed.__name__ = build.__name__
        return intrinsic(typed)

    return made


def _whole(bits: int) -> Any:
    return ir.VectorType(ir.IntType(bits), LANES)


def _all(kind: Any, value: float) -> Any:
    return ir.Constant(kind, [value] * LANES)


def _read(builder: Any, address: Any, kind: Any, align: int) -> Any:
    return builder.load(builder.inttoptr(address, kind.as_pointer()), align=align)


def _write(builder: Any, address: Any, value: Any, align: int) -> None:
    builder.store(value, builder.inttoptr(address, value.type.as_pointer()), align=align)


def _call(builder: Any, name: str, result: Any, *given: Any, **how: Any) -> Any:
    kind = ir.FunctionType(result, [each.type for each in given])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), given, **how)


def _splat(builder: Any, value: Any) -> Any:
    nothing = ir.Constant(_FLOATS, ir.Undefined)
    first = builder.insert_element(nothing, value, ir.Constant(_INT, 0))
    return builder.shuffle_vector(first, nothing, _all(ir.VectorType(_INT, LANES), 0))


def _rounded(builder: Any, value: Any, kind: Any, constant: Callable[[Any, int], Any], short: Any) -> Any:
    """The nearest bfloat16, of two the even one; of what is no number a quiet one."""
    bits = builder.bitcast(value, kind)
    odd = builder.and_(builder.lshr(bits, constant(kind, 16)), constant(kind, 1))
    near = builder.lshr(builder.add(bits, builder.add(odd, constant(kind, 0x7FFF))), constant(kind, 16))
    near = builder.select(builder.fcmp_unordered("uno", value, value), constant(kind, 0x7FC0), near)
    return builder.trunc(near, short)


WORDS = 16
"""Whole numbers of 64 bits that :func:`words` has room for."""


@intrinsic
def words(context: Any) -> Any:
    """The address of room for WORDS numbers, on the stack, until the function returns."""

    def generate(context: Any, builder: Any, _: Any, given: Any) -> Any:
        room = cgutils.alloca_once(builder, ir.ArrayType(ir.IntType(64), WORDS))
        return builder.ptrtoint(room, ir.IntType(64))

    return types.int64(), generate


@_operation(_lanes, types.int64)
def load(b: Any, at: Any) -> Any:
    """float32."""
    return _read(b, at, _FLOATS, 4)


@_operation(_lanes, types.int64)
def load_bfloat16(b: Any, at: Any) -> Any:
    """bfloat16."""
    wide = b.zext(_read(b, at, _whole(16), 2), _whole(32))
    return b.bitcast(b.shl(wide, _all(_whole(32), 16)), _FLOATS)


@_operation(_lanes, types.int64)
def load_float16(b: Any, at: Any) -> Any:
    """float16."""
    return b.fpext(_read(b, at, ir.VectorType(ir.HalfType(), LANES), 2), _FLOATS)


@_operation(_lanes, types.int64)
def load_int8(b: Any, at: Any) -> Any:
    """Whole numbers of 8 bits."""
    return b.sitofp(b.sext(_read(b, at, _whole(8), 1), _whole(32)), _FLOATS)


@_operation(_lanes, types.int64)
def load_low(b: Any, at: Any) -> Any:
    """The lower halves of 16 bytes, 0 to 15."""
    wide = b.zext(_read(b, at, _whole(8), 1), _whole(32))
    return b.sitofp(b.and_(wide, _all(_whole(32), 15)), _FLOATS)


@_operation(_lanes, types.int64)
def load_high(b: Any, at: Any) -> Any:
    """The upper halves of 16 bytes, 0 to 15."""
    wide = b.zext(_read(b, at, _whole(8), 1), _whole(32))
    return b.sitofp(b.lshr(wide, _all(_whole(32), 4)), _FLOATS)


@_operation(types.float32, types.int64)
def load_one(b: Any, at: Any) -> Any:
    """One float32."""
    return _read(b, at, _FLOAT, 4)


@_operation(types.float32, types.int64)
def load_one_bfloat16(b: Any, at: Any) -> Any:
    """One bfloat16."""
    return b.bitcast(b.shl(b.zext(_read(b, at, _SHORT, 2), _INT), ir.Constant(_INT, 16)), _FLOAT)


@_operation(types.int64, types.int64)
def load_int64(b: Any, at: Any) -> Any:
    """One whole number of 64 bits."""
    return _read(b, at, ir.IntType(64), 8)


@_operation(types.void, types.int64, _lanes)
def store(b: Any, at: Any, value: Any) -> None:
    """As float32."""
    _write(b, at, value, 4)


@_operation(types.void, types.int64, _lanes)
def store_bfloat16(b: Any, at: Any, value: Any) -> None:
    """As bfloat16."""
    _write(b, at, _rounded(b, value, _whole(32), _all, _whole(16)), 2)


@_operation(types.void, types.int64, types.float32)
def store_one(b: Any, at: Any, value: Any) -> None:
    """One float32."""
    _write(b, at, value, 4)


@_operation(types.void, types.int64, types.int64)
def store_int64(b: Any, at: Any, value: Any) -> None:
    """One whole number of 64 bits."""
    _write(b, at, value, 8)


@_operation(types.void, types.int64)
def prefetch(b: Any, at: Any) -> None:
    """Have the cache line there soon; any address will do."""
    of = [ir.Constant(_INT, value) for value in (0, 3, 1)]  # to read, in all caches, data
    _call(b, "llvm.prefetch.p0", ir.VoidType(), b.inttoptr(at, _BYTE.as_pointer()), *of)


@_operation(_lanes, types.float32)
def splat(b: Any, value: Any) -> Any:
    """The same in all lanes."""
    return _splat(b, value)


@_operation(_lanes, _lanes, _lanes)
def add(b: Any, x: Any, y: Any) -> Any:
    """x + y."""
    return b.fadd(x, y)


@_operation(_lanes, _lanes, _lanes)
def multiply(b: Any, x: Any, y: Any) -> Any:
    """x · y."""
    return b.fmul(x, y)


@_operation(_lanes, _lanes, _lanes)
def divide(b: Any, x: Any, y: Any) -> Any:
    """x / y."""
    return b.fdiv(x, y)


@_operation(_lanes, _lanes, _lanes, _lanes)
def fma(b: Any, x: Any, y: Any, z: Any) -> Any:
    """x · y + z, rounded once."""
    return _call(b, f"llvm.fma.v{LANES}f32", _FLOATS, x, y, z)


@_operation(_lanes, _lanes, _lanes)
def larger(b: Any, x: Any, y: Any) -> Any:
    """The larger one; y where x is no number."""
    return b.select(b.fcmp_ordered(">", x, y), x, y)


def _constant(value: float) -> Any:
    return _all(_FLOATS, value)


def _fused(b: Any, *given: Any) -> Any:
    return _call(b, f"llvm.fma.v{LANES}f32", _FLOATS, *given)


def _within(b: Any, x: Any, low: float, high: float) -> Any:
    x = b.select(b.fcmp_ordered(">", x, _constant(high)), _constant(high), x)
    return b.select(b.fcmp_ordered("<", x, _constant(low)), _constant(low), x)


def _polynomial(b: Any, x: Any, *factors: float) -> Any:
    """Of the highest power first."""
    y = _constant(factors[0])
    for factor in factors[1:]:
        y = _fused(b, y, x, _constant(factor))
    return y


@_operation(_lanes, _lanes)
def exponential(b: Any, x: Any) -> Any:
    """eˣ to 2 units in the last place, for x from -87 to 88; beyond, that of the nearer end (Cephes, expf)."""
    x = _within(b, x, -87.0, 88.0)
    n = _call(b, f"llvm.rint.v{LANES}f32", _FLOATS, b.fmul(x, _constant(1.44269504088896341)))
    r = _fused(b, n, _constant(2.12194440e-4), _fused(b, n, _constant(-0.693359375), x))
    y = _polynomial(
        b, r, 1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1
    )
    y = b.fadd(_fused(b, b.fmul(r, r), y, r), _constant(1.0))
    power = b.shl(b.add(b.fptosi(n, _whole(32)), _all(_whole(32), 127)), _all(_whole(32), 23))
    return b.fmul(y, b.bitcast(power, _FLOATS))


@_operation(_lanes, _lanes)
def error_function(b: Any, x: Any) -> Any:
    """erf(x) to 6e-7 (the rational approximation of Eigen and XLA, between -4 and 4)."""
    x = _within(b, x, -4.0, 4.0)
    square = b.fmul(x, x)
    above = _polynomial(
        b, square, -2.72614225801306e-10, 2.77068142495902e-08, -2.10102402082508e-06, -5.69250639462346e-05,
        -7.34990630326855e-04, -2.95459980854025e-03, -1.60960333262415e-02,
    )  # fmt: skip
    below = _polynomial(
        b, square, -1.45660718464996e-05, -2.13374055278905e-04, -1.68282697438203e-03, -7.37332916720468e-03,
        -1.42647390514189e-02,
    )  # fmt: skip
    return b.fdiv(b.fmul(x, above), below)


def tile(rows: int, vectors: int) -> Any:
    """A function for compiled code: some rows of a product, times so many vectors of its columns, in registers.

    Its arguments are addresses and steps in bytes: a and the step to its next row, b and the step to its next row, c and
    the same, and the number of terms k, 1 or more: c = a · b, of (rows, k) and (k, 16 · vectors).
    """

    def typed(context: Any, a: Any, a_step: Any, b: Any, b_step: Any, c: Any, c_step: Any, k: Any) -> Any:
        return types.void(*[types.int64] * 7), generate

    def generate(context: Any, builder: Any, _: Any, given: Any) -> Any:
        _tile(builder, rows, vectors, *given)
        return context.get_dummy_value()

    typed.__name__ = f"tile_{rows}_{vectors}"
    return intrinsic(typed)


def _tile(
    builder: Any, rows: int, vectors: int, a: Any, a_step: Any, b: Any, b_step: Any, c: Any, c_step: Any, k: Any
) -> None:
    number = ir.IntType(64)

    def steps(first: Any, step: Any) -> list[Any]:
        found = [first]
        for _ in range(rows - 1):
            found.append(builder.add(found[-1], step))
        return found

    before, loop = builder.block, builder.append_basic_block("tile")
    lines, results = steps(a, a_step), steps(c, c_step)
    builder.branch(loop)
    builder.position_at_end(loop)
    at, term = builder.phi(number), builder.phi(number)
    sums = [builder.phi(_FLOATS) for _ in range(rows * vectors)]
    columns = [_read(builder, builder.add(at, ir.Constant(number, 4 * LANES * n)), _FLOATS, 4) for n in range(vectors)]
    found = []
    for row, line in enumerate(lines):
        value = _splat(builder, _read(builder, builder.add(line, term), _FLOAT, 4))
        found += [_fused(builder, value, column, sums[row * vectors + n]) for n, column in enumerate(columns)]
    following = builder.add(term, ir.Constant(number, 4))
    for phi, first, later in [
        (at, b, builder.add(at, b_step)),
        (term, ir.Constant(number, 0), following),
        *((phi, _constant(0.0), later) for phi, later in zip(sums, found, strict=True)),
    ]:
        phi.add_incoming(first, before)
        phi.add_incoming(later, loop)
    after = builder.append_basic_block("tiled")
    builder.cbranch(builder.icmp_signed("<", following, builder.shl(k, ir.Constant(number, 2))), loop, after)
    builder.position_at_end(after)
    for row, result in enumerate(results):
        for n in range(vectors):
            _write(builder, builder.add(result, ir.Constant(number, 4 * LANES * n)), found[row * vectors + n], 4)


@intrinsic
def transpose(context: Any, x: Any, x_step: Any, y: Any, y_step: Any) -> Any:
    """Sixteen rows of sixteen float32 from x to the columns of y; steps between rows in bytes."""

    def generate(context: Any, builder: Any, _: Any, given: Any) -> Any:
        at, step, to, to_step = given
        lines = []
        for _ in range(LANES):
            lines.append(_read(builder, at, _FLOATS, 4))
            at = builder.add(at, step)
        for distance in (1, 2, 4, 8):  # at each, blocks of that size beside the diagonal change places
            low = [n + LANES - distance if n & distance else n for n in range(LANES)]
            high = [n + LANES if n & distance else n + distance for n in range(LANES)]
            for row in (row for row in range(LANES) if not row & distance):
                pair = lines[row], lines[row + distance]
                for place, order in ((row, low), (row + distance, high)):
                    lines[place] = builder.shuffle_vector(*pair, ir.Constant(ir.VectorType(_INT, LANES), order))
        for line in lines:
            _write(builder, to, line, 4)
            to = builder.add(to, to_step)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4), generate


@_operation(types.float32, _lanes)
def total(b: Any, x: Any) -> Any:
    """The sum of all lanes."""
    return _call(b, f"llvm.vector.reduce.fadd.v{LANES}f32", _FLOAT, ir.Constant(_FLOAT, 0.0), x, fastmath=["reassoc"])


@_operation(types.float32, _lanes)
def largest(b: Any, x: Any) -> Any:
    """The largest of all lanes."""
    return _call(b, f"llvm.vector.reduce.fmax.v{LANES}f32", _FLOAT, x)
