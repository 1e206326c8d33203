"""What a token costs on a CPU, compiled by numba for this very processor: products with packed weights, and a whole decoder layer.

Few rows are multiplied as fast as the weights can be read, whatever their format; between the products of a layer no Python
and no operator of torch is in the way. Threads are those of torch's own OpenMP. Compiled code is kept where numba keeps it,
beside this file or in the user's cache; numba takes it up again while this file is the same, so it says what it is built on.

Addresses are integers, nothing is checked here, and nothing is allocated: numba would free an array once only its address is in
use. :mod:`tabml.text._torch.fewrows` is the door.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import cfunc, njit, types

from tabml.text._torch.vectors import (
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
    store_bfloat16,
    store_int64,
    store_one,
    total,
    words,
)

BUILT_ON = "0c93c4a7feb8f22c"
"""The first digits of the SHA-256 of ``vectors.py``."""

FLOAT32, BFLOAT16, FLOAT16, INT8, INT4, MKL = range(6)
"""Formats of weights. int8 has a float32 scale for each row, int4 a bfloat16 scale and zero for each group of 32; MKL's layout
is its own."""

FIELDS = 6
"""Numbers that say what a linear layer is: format, addresses of weights, scales and bias (or 0), inputs, outputs."""
_KIND, _WEIGHT, _SCALES, _BIAS, _INPUTS, _OUTPUTS = range(0, 8 * FIELDS, 8)
_LINEAR = 8 * FIELDS

QUERY, KEY, VALUE, OUT, GATE, UP, DOWN = range(7)
"""The linear layers of a decoder layer, in the order of its plan."""
_NORM, _LATER_NORM, _QUERY_NORM, _KEY_NORM, _SIZE, _SHARED = (7 * _LINEAR + 8 * at for at in range(6))
PLAN = 7 * FIELDS + 8
"""Numbers of a decoder layer's plan: its linear layers; addresses of the norms' float32 weights before attention, after it, of
queries and of keys (or 0); the size of a head, heads of keys; as float32 epsilon and the factor of scores."""
_EPSILON, _FACTOR = 7 * _LINEAR + 48, 7 * _LINEAR + 56

_AHEAD = 4096
"""Bytes that are asked for before they are needed: processors stop fetching ahead at the end of each page."""
_FOUR, _TWO, _CHUNK = 4, 2, 2 * LANES

_parallel = types.ExternalFunction("tabml_parallel", types.void(types.intp, types.intp, types.uint32, types.uint32))
_thread = types.ExternalFunction("tabml_thread", types.int32())
_threads = types.ExternalFunction("tabml_threads", types.int32())
_sgemm = types.ExternalFunction(
    "tabml_sgemm",
    types.void(
        *[types.int32] * 6, types.intp, types.int32, types.intp, types.int32, types.float32, types.intp, types.int32
    ),
)
_ROW_MAJOR, _NO_TRANSPOSE, _PACKED = 101, 111, 151


def _kept(signature: str, made: Callable[..., Any] = njit, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compiled now, or taken from where numba keeps it, if it finds a place for that."""

    def decorate(function: Callable[..., Any]) -> Any:
        try:
            return made(signature, cache=True, **options)(function)
        except Exception:  # no folder may be written to, or what lies there is damaged
            return made(signature, **options)(function)

    return decorate


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
    if load_int64(linear + _KIND) == INT8:
        value *= load_one(load_int64(linear + _SCALES) + 4 * n)
    bias = load_int64(linear + _BIAS)
    if bias:
        value += load_one(bias + 4 * n)
    store_one(at + 4 * n, value)


def _products(pair: Any, bits: int) -> Any:
    """x · Wᵀ for some of the outputs, of weights of which ``pair`` gives 32."""

    @njit
    def four_outputs(linear: int, x: int, n: int, y: int) -> None:
        k = load_int64(linear + _INPUTS)
        step, groups = k * bits // 8, k // 8
        w, s = load_int64(linear + _WEIGHT) + n * step, load_int64(linear + _SCALES) + n * groups
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
        k, wide = load_int64(linear + _INPUTS), 4 * load_int64(linear + _OUTPUTS)
        step, groups = k * bits // 8, k // 8
        w, s = load_int64(linear + _WEIGHT) + n * step, load_int64(linear + _SCALES) + n * groups
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
        k, wide = load_int64(linear + _INPUTS), load_int64(linear + _OUTPUTS)
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
        kind, wide = load_int64(linear + _KIND), load_int64(linear + _OUTPUTS)
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
        wide = load_int64(load_int64(job + _LAYERS) + _OUTPUTS)
        blocks = wide // LANES
        first, end = blocks * thread // threads * LANES, blocks * (thread + 1) // threads * LANES
        y = load_int64(job + _Y)
        for row in range(rows):
            _silu_product(y + 4 * row * wide, y + 4 * (rows + row) * wide, first, end)


@_kept("void(intp)", cfunc)
def product_share(job: int) -> None:
    """One thread's part of a product."""
    _share_of_product(job, _thread(), _threads())


@njit
def _multiply(share: int, first: int, count: int, x: int, rows: int, y: int, gated: int, threads: int) -> None:
    """x · Wᵀ + b of several linear layers, whose results lie one behind the other, (rows, outputs) each."""
    if load_int64(first + _KIND) == MKL:
        for at in range(count):
            linear = first + _LINEAR * at
            inputs, outputs = load_int64(linear + _INPUTS), load_int64(linear + _OUTPUTS)
            bias = load_int64(linear + _BIAS)
            if bias:
                for row in range(rows):
                    for n in range(outputs):
                        store_one(y + 4 * (row * outputs + n), load_one(bias + 4 * n))
            _sgemm(
                _ROW_MAJOR, _NO_TRANSPOSE, _PACKED, rows, outputs, inputs,
                x, inputs, load_int64(linear + _WEIGHT), inputs, np.float32(1 if bias else 0), y, outputs,
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
        store_int64(job + _LAYERS + 8 * layer, first + _LINEAR * layer)
    _parallel(share, job, np.uint32(threads), np.uint32(0))


@_kept("void(intp, intp, intp, int64, intp, int64)", nogil=True)
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
    _multiply(share, of, 1, x, rows, y, 0, threads)


# Attention


@njit
def _read(at: int, j: int, half: int) -> Any:
    if half:
        return load_bfloat16(at + 2 * j)
    return load(at + 4 * j)


@njit
def _write(at: int, j: int, half: int, value: Any) -> None:
    if half:
        store_bfloat16(at + 2 * j, value)
    else:
        store(at + 4 * j, value)


# A job of attention: queries and results (float32, a row's heads side by side), keys and values of the first slot, the position
# of each row, whether keys and values are bfloat16, positions in a slot, rows, heads, heads of keys, size, room for scores
_QUERIES, _SEEN, _KEYS, _VALUES, _POSITIONS, _HALF, _CAPACITY, _OF_ROWS, _HEADS, _KEY_HEADS, _HEAD_SIZE, _SCORES = (
    range(0, 96, 8)
)


@njit
def _attend(query: int, keys: int, values: int, seen: int, size: int, count: int, half: int, scores: int) -> None:
    """softmax(K q) V, for a query that is scaled; there is room for scores up to a multiple of 16."""
    step = size * (2 if half else 4)
    largest = np.float32(-np.inf)
    for t in range(count):
        found = splat(np.float32(0))
        for j in range(0, size, LANES):
            found = fma(load(query + 4 * j), _read(keys + t * step, j, half), found)
        score = total(found)
        store_one(scores + 4 * t, score)
        largest = max(largest, score)
    for t in range(count, (count + LANES - 1) // LANES * LANES):
        store_one(scores + 4 * t, np.float32(-np.inf))
    down, shares = splat(-largest), splat(np.float32(0))
    for t in range(0, count, LANES):
        share = exponential(add(load(scores + 4 * t), down))
        store(scores + 4 * t, share)
        shares = add(shares, share)
    whole = splat(np.float32(1) / total(shares))
    for j in range(0, size, LANES):
        found = splat(np.float32(0))
        for t in range(count):
            found = fma(splat(load_one(scores + 4 * t)), _read(values + t * step, j, half), found)
        store(seen + 4 * j, multiply(found, whole))


@_kept("void(intp)", cfunc)
def attention_share(job: int) -> None:
    """One thread's part of attention: some heads of some rows."""
    heads, shared, size = load_int64(job + _HEADS), load_int64(job + _KEY_HEADS), load_int64(job + _HEAD_SIZE)
    half, capacity, positions = load_int64(job + _HALF), load_int64(job + _CAPACITY), load_int64(job + _POSITIONS)
    of_head = capacity * size * (2 if half else 4)
    work, thread, threads = load_int64(job + _OF_ROWS) * heads, _thread(), _threads()
    scores = load_int64(job + _SCORES) + 4 * thread * (capacity + LANES)
    for at in range(work * thread // threads, work * (thread + 1) // threads):
        row, head = at // heads, at % heads
        slot = (row * shared + head // (heads // shared)) * of_head
        _attend(
            load_int64(job + _QUERIES) + 4 * at * size, load_int64(job + _KEYS) + slot, load_int64(job + _VALUES) + slot,
            load_int64(job + _SEEN) + 4 * at * size, size, load_int64(positions + 8 * row) + 1, half, scores,
        )  # fmt: skip


# A decoder layer


@njit
def _norm(x: int, weight: int, y: int, width: int, epsilon: float) -> None:
    """x / √(mean(x²) + ε) · w (RMSNorm, Zhang and Sennrich 2019)."""
    squares = splat(np.float32(0))
    for j in range(0, width, LANES):
        squares = fma(load(x + 4 * j), load(x + 4 * j), squares)
    length = splat(np.float32(1) / np.sqrt(total(squares) / np.float32(width) + epsilon))
    for j in range(0, width, LANES):
        store(y + 4 * j, multiply(multiply(load(x + 4 * j), length), load(weight + 4 * j)))


@njit
def _turn(x: int, cos: int, sin: int, size: int, factor: float) -> None:
    """x · cos + rotated(x) · sin, times the factor (rotary embedding of halves; Su et al. 2021)."""
    half, by = 2 * size, splat(factor)
    for at in range(0, half, 4 * LANES):
        low, high = multiply(load(x + at), by), multiply(load(x + half + at), by)
        minus = multiply(high, splat(np.float32(-1)))
        store(x + at, fma(low, load(cos + at), multiply(minus, load(sin + at))))
        store(x + half + at, fma(high, load(cos + half + at), multiply(low, load(sin + half + at))))


def room_of(rows: int, *, width: int, queries: int, keys: int, inner: int, capacity: int, threads: int) -> int:
    """Numbers that :func:`decoder_layer` needs room for.

    Args:
        rows: How many.
        width: Of hidden states.
        queries: Outputs of the layer of queries.
        keys: The same.
        inner: Outputs of the gate.
        capacity: Positions of a row.
        threads: That compute.
    """
    return rows * (3 * width + 2 * queries + 2 * keys + 2 * inner) + threads * (capacity + LANES)


@_kept("void(intp, intp, intp, intp, intp, int64, intp, intp, intp, intp, intp, int64, int64, int64, intp)", nogil=True)
def decoder_layer(
    product: int,
    attention: int,
    plan: int,
    hidden: int,
    out: int,
    rows: int,
    cos: int,
    sin: int,
    keys: int,
    values: int,
    positions: int,
    capacity: int,
    half: int,
    threads: int,
    room: int,
) -> None:
    """A decoder layer of Llama's kind for one token of each row; keys and values are written at its position.

    Args:
        product: The address of ``product_share``.
        attention: The address of ``attention_share``.
        plan: Of the layer.
        hidden: (rows, width).
        out: (rows, width), is written.
        rows: How many.
        cos: (rows, size of a head), float32.
        sin: The same.
        keys: (rows and more, heads of keys, capacity, size).
        values: The same.
        positions: (rows,), int64: where the row's keys and values go; those before it are looked at too.
        capacity: Positions of a row.
        half: Whether hidden states, keys and values are bfloat16, not float32.
        threads: That compute.
        room: For :func:`room_of` float32.
    """
    width, of_queries = load_int64(plan + _INPUTS), load_int64(plan + _LINEAR * QUERY + _OUTPUTS)
    of_keys, inner = load_int64(plan + _LINEAR * KEY + _OUTPUTS), load_int64(plan + _LINEAR * GATE + _OUTPUTS)
    size, shared = load_int64(plan + _SIZE), load_int64(plan + _SHARED)
    epsilon, factor = load_one(plan + _EPSILON), load_one(plan + _FACTOR)
    x = room
    normed = x + 4 * rows * width
    added = normed + 4 * rows * width
    query = added + 4 * rows * width
    key = query + 4 * rows * of_queries
    value = key + 4 * rows * of_keys
    seen = value + 4 * rows * of_keys
    gate = seen + 4 * rows * of_queries
    scores = gate + 8 * rows * inner
    number = 2 if half else 4

    for row in range(rows):
        of_row = 4 * row * width
        for j in range(0, width, LANES):
            store(x + of_row + 4 * j, _read(hidden + number * row * width, j, half))
        _norm(x + of_row, load_int64(plan + _NORM), normed + of_row, width, epsilon)
    _multiply(product, plan, 3, normed, rows, query, 0, threads)

    query_norm, key_norm = load_int64(plan + _QUERY_NORM), load_int64(plan + _KEY_NORM)
    for row in range(rows):
        turns = 4 * row * size
        for at in range(query + 4 * row * of_queries, query + 4 * (row + 1) * of_queries, 4 * size):
            if query_norm:
                _norm(at, query_norm, at, size, epsilon)
            _turn(at, cos + turns, sin + turns, size, factor)
        place = load_int64(positions + 8 * row)
        for head in range(shared):
            at = key + 4 * (row * of_keys + head * size)
            if key_norm:
                _norm(at, key_norm, at, size, epsilon)
            _turn(at, cos + turns, sin + turns, size, np.float32(1))
            to = number * ((row * shared + head) * capacity + place) * size
            for j in range(0, size, LANES):
                _write(keys + to, j, half, load(at + 4 * j))
                _write(values + to, j, half, load(value + 4 * (row * of_keys + head * size + j)))

    job = words()
    store_int64(job + _QUERIES, query)
    store_int64(job + _SEEN, seen)
    store_int64(job + _KEYS, keys)
    store_int64(job + _VALUES, values)
    store_int64(job + _POSITIONS, positions)
    store_int64(job + _HALF, half)
    store_int64(job + _CAPACITY, capacity)
    store_int64(job + _OF_ROWS, rows)
    store_int64(job + _HEADS, of_queries // size)
    store_int64(job + _KEY_HEADS, shared)
    store_int64(job + _HEAD_SIZE, size)
    store_int64(job + _SCORES, scores)
    _parallel(attention, job, np.uint32(threads), np.uint32(0))

    _multiply(product, plan + _LINEAR * OUT, 1, seen, rows, added, 0, threads)
    for row in range(rows):
        of_row = 4 * row * width
        for j in range(0, width, LANES):
            place = of_row + 4 * j
            store(x + place, add(load(x + place), load(added + place)))
        _norm(x + of_row, load_int64(plan + _LATER_NORM), normed + of_row, width, epsilon)
    _multiply(product, plan + _LINEAR * GATE, 2, normed, rows, gate, 1, threads)
    _multiply(product, plan + _LINEAR * DOWN, 1, gate, rows, added, 0, threads)
    for row in range(rows):
        for j in range(0, width, LANES):
            place = 4 * (row * width + j)
            _write(out + number * row * width, j, half, add(load(x + place), load(added + place)))
