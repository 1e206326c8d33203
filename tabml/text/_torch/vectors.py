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
    nothing = ir.Constant(_FLOATS, ir.Undefined)
    first = b.insert_element(nothing, value, ir.Constant(_INT, 0))
    return b.shuffle_vector(first, nothing, _all(ir.VectorType(_INT, LANES), 0))


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


@_operation(_lanes, _lanes)
def exponential(b: Any, x: Any) -> Any:
    """eˣ to 2 units in the last place, for x from -87 to 88; beyond, that of the nearer end (Cephes, expf)."""

    def constant(value: float) -> Any:
        return _all(_FLOATS, value)

    def fused(*given: Any) -> Any:
        return _call(b, f"llvm.fma.v{LANES}f32", _FLOATS, *given)

    x = b.select(b.fcmp_ordered(">", x, constant(88.0)), constant(88.0), x)
    x = b.select(b.fcmp_ordered("<", x, constant(-87.0)), constant(-87.0), x)
    n = _call(b, f"llvm.rint.v{LANES}f32", _FLOATS, b.fmul(x, constant(1.44269504088896341)))
    r = fused(n, constant(2.12194440e-4), fused(n, constant(-0.693359375), x))
    y = constant(1.9875691500e-4)
    for factor in (1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1):
        y = fused(y, r, constant(factor))
    y = b.fadd(fused(b.fmul(r, r), y, r), constant(1.0))
    power = b.shl(b.add(b.fptosi(n, _whole(32)), _all(_whole(32), 127)), _all(_whole(32), 23))
    return b.fmul(y, b.bitcast(power, _FLOATS))


@_operation(types.float32, _lanes)
def total(b: Any, x: Any) -> Any:
    """The sum of all lanes."""
    return _call(b, f"llvm.vector.reduce.fadd.v{LANES}f32", _FLOAT, ir.Constant(_FLOAT, 0.0), x, fastmath=["reassoc"])
