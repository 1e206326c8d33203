"""Products with packed weights: few rows are multiplied as fast as the weights can be read, whatever their format."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import cfunc, njit

from tabml.text._torch.kernels.base import (
    BFLOAT16,
    BIAS,
    FLOAT16,
    FLOAT32,
    INPUTS,
    INT8,
    KIND,
    LINEAR,
    MKL,
    NO_TRANSPOSE,
    OUTPUTS,
    PACKED,
    ROW_MAJOR,
    SCALES,
    WEIGHT,
    kept,
    parallel,
    sgemm,
    thread_here,
    threads_here,
)
from tabml.text._torch.kernels.vectors import (
    LANES,
    add,
    divide,
    exponential,
    fma,
    load,
    load_bfloat16,
    load_float16,
    load_high,
    load_int8,
    load_int64,
    load_low,
    load_one,
    load_one_bfloat16,
    multiply,
    prefetch,
    splat,
    store,
    store_int64,
    store_one,
    total,
    words,
)

BUILT_ON = "3793ef7f0aa446b9"
"""The first digits of the SHA-256 of ``vectors.py`` and ``base.py``."""

_AHEAD = 4096
"""Bytes that are asked for before they are needed: processors stop fetching ahead at the end of each page."""
_FOUR, _TWO, _CHUNK = 4, 2, 2 * LANES

# Two times 16 weights of a row, from the j-th


@njit
def _float32(row: int, groups: int, j: int) -> Any:
    return load(row + 4 * j), load(row + 4 * j + 4 * LANES)


@njit
def _float16(row: int, groups: int, j: int) -> Any:
    return load_float16(row + 2 * j), load_float16(row + 2 * j + 2 * LANES)


@njit
def _bfloat16(row: int, groups: int, j: int) -> Any:
    return load_bfloat16(row + 2 * j), load_bfloat16(row + 2 * j + 2 * LANES)


@njit
def _int8(row: int, groups: int, j: int) -> Any:
    return load_int8(row + j), load_int8(row + j + LANES)


@njit
def _int4(row: int, groups: int, j: int) -> Any:
    at = groups + j // 8
    scale, zero = splat(load_one_bfloat16(at)), splat(load_one_bfloat16(at + 2))
    return fma(load_low(row + j // 2), scale, zero), fma(load_high(row + j // 2), scale, zero)


@njit
def _put(at: int, value: float, linear: int, n: int) -> None:
    """A result, with what is said of its output as a whole."""
    if load_int64(linear + KIND) == INT8:
        value *= load_one(load_int64(linear + SCALES) + 4 * n)
    bias = load_int64(linear + BIAS)
    if bias:
        value += load_one(bias + 4 * n)
    store_one(at + 4 * n, value)


def _products(pair: Any, bits: int) -> Any:
    """x · Wᵀ for some of the outputs, of weights of which ``pair`` gives 32."""

    @njit
    def four_outputs(linear: int, x: int, n: int, y: int) -> None:
        k = load_int64(linear + INPUTS)
        step, groups = k * bits // 8, k // 8
        w, s = load_int64(linear + WEIGHT) + n * step, load_int64(linear + SCALES) + n * groups
        a = b = c = d = splat(np.float32(0))
        for j in range(0, k, _CHUNK):
            for line in range(0, _FOUR * _CHUNK * bits // 8, 64):
                prefetch(w + _AHEAD + _FOUR * j * bits // 8 + line)
            u, v = load(x + 4 * j), load(x + 4 * j + 4 * LANES)
            p, q = pair(w, s, j)
            a = fma(q, v, fma(p, u, a))
            p, q = pair(w + step, s + groups, j)
            b = fma(q, v, fma(p, u, b))
            p, q = pair(w + 2 * step, s + 2 * groups, j)
            c = fma(q, v, fma(p, u, c))
            p, q = pair(w + 3 * step, s + 3 * groups, j)
            d = fma(q, v, fma(p, u, d))
        _put(y, total(a), linear, n)
        _put(y, total(b), linear, n + 1)
        _put(y, total(c), linear, n + 2)
        _put(y, total(d), linear, n + 3)

    @njit
    def two_outputs_of_four(linear: int, x: int, n: int, y: int) -> None:
        k, wide = load_int64(linear + INPUTS), 4 * load_int64(linear + OUTPUTS)
        step, groups = k * bits // 8, k // 8
        w, s = load_int64(linear + WEIGHT) + n * step, load_int64(linear + SCALES) + n * groups
        a = b = c = d = e = f = g = h = splat(np.float32(0))
        for j in range(0, k, _CHUNK):
            p, q = pair(w, s, j)
            r, t = pair(w + step, s + groups, j)
            at = x + 4 * j
            u, v = load(at), load(at + 4 * LANES)
            a, b = fma(q, v, fma(p, u, a)), fma(t, v, fma(r, u, b))
            at += 4 * k
            u, v = load(at), load(at + 4 * LANES)
            c, d = fma(q, v, fma(p, u, c)), fma(t, v, fma(r, u, d))
            at += 4 * k
            u, v = load(at), load(at + 4 * LANES)
            e, f = fma(q, v, fma(p, u, e)), fma(t, v, fma(r, u, f))
            at += 4 * k
            u, v = load(at), load(at + 4 * LANES)
            g, h = fma(q, v, fma(p, u, g)), fma(t, v, fma(r, u, h))
        _put(y, total(a), linear, n)
        _put(y, total(b), linear, n + 1)
        _put(y + wide, total(c), linear, n)
        _put(y + wide, total(d), linear, n + 1)
        _put(y + 2 * wide, total(e), linear, n)
        _put(y + 2 * wide, total(f), linear, n + 1)
        _put(y + 3 * wide, total(g), linear, n)
        _put(y + 3 * wide, total(h), linear, n + 1)

    @njit
    def some(linear: int, x: int, rows: int, y: int, first: int, end: int) -> None:
        k, wide = load_int64(linear + INPUTS), load_int64(linear + OUTPUTS)
        for n in range(first, end, _FOUR):
            n = min(n, wide - _FOUR)  # the last few are computed twice
            m = 0
            while m + _FOUR <= rows:
                two_outputs_of_four(linear, x + 4 * m * k, n, y + 4 * m * wide)
                two_outputs_of_four(linear, x + 4 * m * k, n + _TWO, y + 4 * m * wide)
                m += _FOUR
            while m < rows:
                four_outputs(linear, x + 4 * m * k, n, y + 4 * m * wide)
                m += 1

    return some


_float32_products, _bfloat16_products = _products(_float32, 32), _products(_bfloat16, 16)
_float16_products, _int8_products, _int4_products = _products(_float16, 16), _products(_int8, 8), _products(_int4, 4)

# A job is what the threads of one product share: how many linear layers, x, rows, y, whether SiLU gates follow, and the layers
_COUNT, _X, _ROWS, _Y, _GATED, _LAYERS = range(0, 48, 8)


@njit
def _silu_product(gate: int, up: int, first: int, end: int) -> None:
    """gate · σ(gate) · up, in place of the gate; whole lanes."""
    one, minus = splat(np.float32(1)), splat(np.float32(-1))
    for at in range(first, end, LANES):
        g = load(gate + 4 * at)
        sigmoid = divide(one, add(one, exponential(multiply(minus, g))))
        store(gate + 4 * at, multiply(multiply(g, sigmoid), load(up + 4 * at)))


@njit
def _share_of_product(job: int, thread: int, threads: int) -> None:
    x, rows, y = load_int64(job + _X), load_int64(job + _ROWS), load_int64(job + _Y)
    for at in range(load_int64(job + _COUNT)):
        linear = load_int64(job + _LAYERS + 8 * at)
        kind, wide = load_int64(linear + KIND), load_int64(linear + OUTPUTS)
        blocks = (wide + LANES - 1) // LANES
        first, end = blocks * thread // threads * LANES, min(blocks * (thread + 1) // threads * LANES, wide)
        if kind == FLOAT32:
            _float32_products(linear, x, rows, y, first, end)
        elif kind == BFLOAT16:
            _bfloat16_products(linear, x, rows, y, first, end)
        elif kind == FLOAT16:
            _float16_products(linear, x, rows, y, first, end)
        elif kind == INT8:
            _int8_products(linear, x, rows, y, first, end)
        else:
            _int4_products(linear, x, rows, y, first, end)
        y += 4 * rows * wide
    if load_int64(job + _GATED):
        wide = load_int64(load_int64(job + _LAYERS) + OUTPUTS)
        blocks = wide // LANES
        first, end = blocks * thread // threads * LANES, blocks * (thread + 1) // threads * LANES
        y = load_int64(job + _Y)
        for row in range(rows):
            _silu_product(y + 4 * row * wide, y + 4 * (rows + row) * wide, first, end)


@kept("void(intp)", cfunc)
def product_share(job: int) -> None:
    """One thread's part of a product."""
    _share_of_product(job, thread_here(), threads_here())


@njit
def multiply_all(share: int, first: int, count: int, x: int, rows: int, y: int, gated: int, threads: int) -> None:
    """x · Wᵀ + b of several linear layers, whose results lie one behind the other, (rows, outputs) each."""
    if load_int64(first + KIND) == MKL:
        for at in range(count):
            linear = first + LINEAR * at
            inputs, outputs = load_int64(linear + INPUTS), load_int64(linear + OUTPUTS)
            bias = load_int64(linear + BIAS)
            if bias:
                for row in range(rows):
                    for n in range(outputs):
                        store_one(y + 4 * (row * outputs + n), load_one(bias + 4 * n))
            sgemm(
                ROW_MAJOR, NO_TRANSPOSE, PACKED, rows, outputs, inputs,
                x, inputs, load_int64(linear + WEIGHT), inputs, np.float32(1 if bias else 0), y, outputs,
            )  # fmt: skip
            if gated and at:
                _silu_product(y - 4 * rows * outputs, y, 0, rows * outputs)
            y += 4 * rows * outputs
        return
    job = words()
    store_int64(job + _COUNT, count)
    store_int64(job + _X, x)
    store_int64(job + _ROWS, rows)
    store_int64(job + _Y, y)
    store_int64(job + _GATED, gated)
    for layer in range(count):
        store_int64(job + _LAYERS + 8 * layer, first + LINEAR * layer)
    parallel(share, job, np.uint32(threads), np.uint32(0))


@kept("void(intp, intp, intp, int64, intp, int64)", nogil=True)
def linear(share: int, of: int, x: int, rows: int, y: int, threads: int) -> None:
    """x · Wᵀ + b.

    Args:
        share: The address of ``product_share``.
        of: What the layer is.
        x: (rows, inputs), float32.
        rows: How many.
        y: (rows, outputs), float32, is written.
        threads: That compute.
    """
    multiply_all(share, of, 1, x, rows, y, 0, threads)
