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
from numba.core.registry import cpu_target
from numba.extending import intrinsic, models, register_model

LANES = 16
FEATURES = frozenset(cpu_target.target_context.codegen().magic_tuple()[2].split(","))
"""What numba compiles for: LLVM's names, each with a sign."""
_WHOLE, _HALVES = 2, 1
BYTE_DOTS = _WHOLE if "+avx512vnni" in FEATURES else _HALVES if "+avxvnni" in FEATURES else 0
"""Whether sums of products of bytes are an instruction, for all lanes at once or for half of them."""

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


def _splat(builder: Any, value: Any, kind: Any) -> Any:
    nothing = ir.Constant(kind, ir.Undefined)
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


@_operation(types.void, types.int64, types.int32)
def store_int32(b: Any, at: Any, value: Any) -> None:
    """One whole number of 32 bits."""
    _write(b, at, value, 4)


@_operation(types.void, types.int64)
def prefetch(b: Any, at: Any) -> None:
    """Have the cache line there soon; any address will do."""
    of = [ir.Constant(_INT, value) for value in (0, 3, 1)]  # to read, in all caches, data
    _call(b, "llvm.prefetch.p0", ir.VoidType(), b.inttoptr(at, _BYTE.as_pointer()), *of)


@_operation(_lanes, types.float32)
def splat(b: Any, value: Any) -> Any:
    """The same in all lanes."""
    return _splat(b, value, _FLOATS)


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
def smaller(b: Any, x: Any, y: Any) -> Any:
    """The smaller one; y where x is no number."""
    return b.select(b.fcmp_ordered("<", x, y), x, y)


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
        a, a_step, b, b_step, c, c_step, k = given

        def product(value: Any, column: Any, before: Any) -> Any:
            return _fused(builder, _splat(builder, value, _FLOATS), column, before)

        start = [[_constant(0.0)] * vectors] * rows
        found = _tile(builder, _FLOATS, start, _steps(builder, a, a_step, rows), b, b_step, k, product)
        for line, at in zip(found, _steps(builder, c, c_step, rows), strict=True):
            for value, place in zip(line, _steps(builder, at, _number(4 * LANES), vectors), strict=True):
                _write(builder, place, value, 4)
        return context.get_dummy_value()

    typed.__name__ = f"tile_{rows}_{vectors}"
    return intrinsic(typed)


def byte_tile(rows: int, vectors: int) -> Any:
    """The same for whole numbers, four terms at a time; needs BYTE_DOTS.

    Its arguments are addresses and a step: a, whose rows of k bytes, 0 to 255, lie one behind the other; of each row its
    scale and zero, float32 and int32; b and the step to its next four terms, of each column four bytes, -128 to 127; of each
    column the sum of its bytes, int32, and its scale, float32; c and the step to its next row; and k, a multiple of 4:
    c = (a - zero) · b · scale · scale, float32.
    """

    def typed(context: Any, a: Any, of_rows: Any, b: Any, b_step: Any, sums: Any, scales: Any, c: Any, c_step: Any, k: Any) -> Any:  # fmt: skip
        return types.void(*[types.int64] * 9), generate

    def generate(context: Any, builder: Any, _: Any, given: Any) -> Any:
        a, of_rows, b, b_step, sums, scales, c, c_step, k = given
        whole, lines = _whole(32), _steps(builder, of_rows, _number(8), rows)

        def product(value: Any, column: Any, before: Any) -> Any:
            return _dot(builder, before, _splat(builder, value, whole), column)

        zeros = [_splat(builder, _read(builder, builder.add(at, _number(4)), _INT, 4), whole) for at in lines]
        wide = _number(4 * LANES)
        totals = [_read(builder, at, whole, 4) for at in _steps(builder, sums, wide, vectors)]
        start = [[builder.neg(builder.mul(zero, each)) for each in totals] for zero in zeros]
        terms = builder.lshr(k, _number(2))
        found = _tile(builder, whole, start, _steps(builder, a, k, rows), b, b_step, terms, product)
        for line, at, place in zip(found, lines, _steps(builder, c, c_step, rows), strict=True):
            by = _splat(builder, _read(builder, at, _FLOAT, 4), _FLOATS)
            places = _steps(builder, place, wide, vectors), _steps(builder, scales, wide, vectors)
            for value, to, scale in zip(line, *places, strict=True):
                factor = builder.fmul(by, _read(builder, scale, _FLOATS, 4))
                _write(builder, to, builder.fmul(builder.sitofp(value, _FLOATS), factor), 4)
        return context.get_dummy_value()

    typed.__name__ = f"byte_tile_{rows}_{vectors}"
    return intrinsic(typed)


def _number(value: int) -> Any:
    return ir.Constant(ir.IntType(64), value)


def _steps(builder: Any, first: Any, step: Any, count: int) -> list[Any]:
    found = [first]
    for _ in range(count - 1):
        found.append(builder.add(found[-1], step))
    return found


def _dot(builder: Any, sums: Any, x: Any, y: Any) -> Any:
    """Of each four bytes, those of x without a sign, those of y with one."""
    if BYTE_DOTS == _WHOLE:
        return _call(builder, "llvm.x86.avx512.vpdpbusd.512", _whole(32), sums, x, y)
    halves = []
    for first in (0, LANES // 2):
        order = ir.Constant(ir.VectorType(_INT, LANES // 2), list(range(first, first + LANES // 2)))
        parts = [builder.shuffle_vector(each, each, order) for each in (sums, x, y)]
        halves.append(_call(builder, "llvm.x86.avx512.vpdpbusd.256", parts[0].type, *parts))
    return builder.shuffle_vector(*halves, ir.Constant(ir.VectorType(_INT, LANES), list(range(LANES))))


def _tile(
    builder: Any, kind: Any, start: list[list[Any]], lines: list[Any], b: Any, b_step: Any, terms: Any, product: Any
) -> list[list[Any]]:
    """Sums of products, begun with ``start``: of one element of each line, and vectors that lie behind each other in b."""
    vectors = len(start[0])
    before, loop, after = builder.block, builder.append_basic_block("tile"), builder.append_basic_block("tiled")
    builder.branch(loop)
    builder.position_at_end(loop)
    at, term = builder.phi(b.type), builder.phi(b.type)
    sums = [[builder.phi(kind) for _ in line] for line in start]
    columns = [_read(builder, place, kind, 4) for place in _steps(builder, at, _number(4 * LANES), vectors)]
    found = []
    for line, so_far in zip(lines, sums, strict=True):
        value = _read(builder, builder.add(line, builder.shl(term, _number(2))), kind.element, 4)
        found.append([product(value, column, each) for column, each in zip(columns, so_far, strict=True)])
    following = builder.add(term, _number(1))
    for phi, first, later in [
        (at, b, builder.add(at, b_step)),
        (term, _number(0), following),
        *(
            (phi, *values)
            for lines in zip(sums, start, found, strict=True)
            for phi, *values in zip(*lines, strict=True)
        ),
    ]:
        phi.add_incoming(first, before)
        phi.add_incoming(later, loop)
    builder.cbranch(builder.icmp_signed("<", following, terms), loop, after)
    builder.position_at_end(after)
    return found


@_operation(types.void, types.int64, _lanes)
def store_bytes(b: Any, at: Any, x: Any) -> None:
    """As whole numbers from 0 to 255; there is room for 16."""
    near = _call(b, f"llvm.rint.v{LANES}f32", _FLOATS, _within(b, x, 0.0, 255.0))
    _write(b, at, b.trunc(b.fptoui(near, _whole(32)), _whole(8)), 1)


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
def smallest(b: Any, x: Any) -> Any:
    """The smallest of all lanes."""
    return _call(b, f"llvm.vector.reduce.fmin.v{LANES}f32", _FLOAT, x)


@_operation(types.float32, _lanes)
def largest(b: Any, x: Any) -> Any:
    """The largest of all lanes."""
    return _call(b, f"llvm.vector.reduce.fmax.v{LANES}f32", _FLOAT, x)
