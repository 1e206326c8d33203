"""Products of bytes: weights of int8, and activations that are rounded to eight bits a row when they come.

A row of x is x ≈ scale · (q - zero) with q from 0 to 255 (asymmetric quantisation; Jacob et al. 2018), between its smallest and its
largest number, so that four products and their sum are one instruction. Weights lie in panels of 64 outputs, at the end of 16: of
four inputs at a time, four bytes of each output.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import cfunc, njit

from tabml.text._torch.kernels.base import INPUTS, OUTPUTS, SCALES, WEIGHT, kept, parallel, thread_here, threads_here
from tabml.text._torch.kernels.vectors import (
    BYTE_DOTS,
    FEATURES,
    LANES,
    add,
    byte_tile,
    fma,
    larger,
    largest,
    load,
    load_int64,
    multiply,
    smaller,
    smallest,
    splat,
    store_bytes,
    store_int32,
    store_int64,
    store_one,
    total,
    words,
)

BUILT_ON = "3793ef7f0aa446b9"
"""The first digits of the SHA-256 of ``vectors.py`` and ``base.py``."""

POSSIBLE = bool(BYTE_DOTS)
"""Whether this processor has the instruction: AVX512-VNNI, AVX-VNNI."""
PANEL = 64
"""Outputs."""
_TALL, _SOME = 6, 3
_WIDE = 4 if "+avx512f" in FEATURES else 1


def _tiles(rows: int) -> Any:
    """A panel's, and those at the end."""
    if POSSIBLE:
        return byte_tile(rows, _WIDE), byte_tile(rows, 1)

    @njit
    def nothing(a: int, of: int, b: int, step: int, sums: int, scales: int, c: int, c_step: int, k: int) -> None:
        return

    return nothing, nothing


(_tall, _tall_end), (_some, _some_end), (_one, _one_end) = _tiles(_TALL), _tiles(_SOME), _tiles(1)


@njit
def quantize(x: int, rows: int, width: int, q: int, of_rows: int) -> None:
    """Rounds rows.

    Args:
        x: (rows, width), float32.
        rows: How many.
        width: A multiple of 16.
        q: (rows, width), bytes, is written.
        of_rows: (rows, 2), is written: scale, float32, and zero, int32. The scale of a row with a number that is none is none.
    """
    nothing = splat(np.float32(0))
    for row in range(rows):
        at, to = x + 4 * row * width, q + row * width
        low = high = strange = nothing
        for j in range(0, width, LANES):
            value = load(at + 4 * j)
            low, high, strange = smaller(value, low), larger(value, high), fma(value, nothing, strange)
        least, most = smallest(low), largest(high)
        scale = (most - least) / np.float32(255)
        if scale == 0:
            scale = np.float32(1)
        by = np.float32(1) / scale
        zero = np.float32(np.rint(-least * by))
        scales, zeros = splat(by), splat(zero)
        for j in range(0, width, LANES):
            store_bytes(to + j, add(multiply(load(at + 4 * j), scales), zeros))
        store_one(of_rows + 8 * row, scale + total(strange))
        store_int32(of_rows + 8 * row + 4, np.int32(zero))


# A job is what the threads of one product share

_LINEAR, _Q, _OF_ROWS, _ROWS, _Y = range(0, 40, 8)


@njit
def _panels(job: int, thread: int, threads: int) -> None:
    linear, q, of_rows = load_int64(job + _LINEAR), load_int64(job + _Q), load_int64(job + _OF_ROWS)
    rows, k, wide = load_int64(job + _ROWS), load_int64(linear + INPUTS), load_int64(linear + OUTPUTS)
    weight, scales = load_int64(linear + WEIGHT), load_int64(linear + SCALES)
    whole, rest = wide // PANEL, wide % PANEL // LANES
    work, step = whole + rest, 4 * wide
    for at in range(work * thread // threads, work * (thread + 1) // threads):
        n = at * PANEL if at < whole else whole * PANEL + (at - whole) * LANES
        b, sums, factors = weight + n * k, scales + 4 * (wide + n), scales + 4 * n
        y = load_int64(job + _Y) + 4 * n
        m = 0
        if at >= whole:
            while m + _TALL <= rows:
                _tall_end(q + m * k, of_rows + 8 * m, b, 4 * LANES, sums, factors, y + m * step, step, k)
                m += _TALL
            while m + _SOME <= rows:
                _some_end(q + m * k, of_rows + 8 * m, b, 4 * LANES, sums, factors, y + m * step, step, k)
                m += _SOME
            while m < rows:
                _one_end(q + m * k, of_rows + 8 * m, b, 4 * LANES, sums, factors, y + m * step, step, k)
                m += 1
            continue
        while m < rows:
            tall = _TALL if m + _TALL <= rows else _SOME if m + _SOME <= rows else 1
            for part in range(0, 4 * PANEL, 4 * LANES * _WIDE):
                c, of = y + m * step + part, of_rows + 8 * m
                if tall == _TALL:
                    _tall(q + m * k, of, b + part, 4 * PANEL, sums + part, factors + part, c, step, k)
                elif tall == _SOME:
                    _some(q + m * k, of, b + part, 4 * PANEL, sums + part, factors + part, c, step, k)
                else:
                    _one(q + m * k, of, b + part, 4 * PANEL, sums + part, factors + part, c, step, k)
            m += tall


@kept("void(intp)", cfunc)
def panel_share(job: int) -> None:
    """One thread's part of a product: some panels."""
    _panels(job, thread_here(), threads_here())


@njit
def multiply_bytes(share: int, linear: int, q: int, of_rows: int, rows: int, y: int, threads: int) -> None:
    """x · Wᵀ, without a bias, of what :func:`quantize` made of x."""
    job = words()
    store_int64(job + _LINEAR, linear)
    store_int64(job + _Q, q)
    store_int64(job + _OF_ROWS, of_rows)
    store_int64(job + _ROWS, rows)
    store_int64(job + _Y, y)
    if threads == 1:
        _panels(job, 0, 1)
    else:
        parallel(share, job, np.uint32(threads), np.uint32(0))


@kept("void(intp, intp, intp, int64, intp, int64, intp)", nogil=True)
def quantized_linear(share: int, linear: int, x: int, rows: int, y: int, threads: int, room: int) -> None:
    """x · Wᵀ, without a bias.

    Args:
        share: The address of ``panel_share``.
        linear: What the layer is; its scales are (2, outputs): scale, float32, and the sum of the row's bytes, int32.
        x: (rows, inputs), float32; inputs are a multiple of 16.
        rows: How many.
        y: (rows, outputs), float32, is written; outputs are a multiple of 16.
        threads: That compute.
        room: For rows · (inputs + 8) bytes.
    """
    width = load_int64(linear + INPUTS)
    quantize(x, rows, width, room + 8 * rows, room)
    multiply_bytes(share, linear, room + 8 * rows, room, rows, y, threads)
