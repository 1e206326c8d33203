"""A whole decoder layer for single tokens: between its products no Python and no operator of torch is in the way."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import cfunc, njit

from tabml.text._torch.kernels.base import FIELDS, INPUTS, LINEAR, OUTPUTS, kept, parallel, thread_here, threads_here
from tabml.text._torch.kernels.products import multiply_all
from tabml.text._torch.kernels.vectors import (
    LANES,
    add,
    exponential,
    fma,
    load,
    load_bfloat16,
    load_int64,
    load_one,
    multiply,
    splat,
    store,
    store_bfloat16,
    store_int64,
    store_one,
    total,
    words,
)

BUILT_ON = "393f1193b8d0c863"
"""The first digits of the SHA-256 of ``vectors.py``, ``base.py`` and ``products.py``."""

QUERY, KEY, VALUE, OUT, GATE, UP, DOWN = range(7)
"""The linear layers of a decoder layer, in the order of its plan."""
_NORM, _LATER_NORM, _QUERY_NORM, _KEY_NORM, _SIZE, _SHARED = (7 * LINEAR + 8 * at for at in range(6))
PLAN = 7 * FIELDS + 8
"""Numbers of a decoder layer's plan: its linear layers; addresses of the norms' float32 weights before attention, after it, of
queries and of keys (or 0); the size of a head, heads of keys; as float32 epsilon and the factor of scores."""
_EPSILON, _FACTOR = 7 * LINEAR + 48, 7 * LINEAR + 56


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


@kept("void(intp)", cfunc)
def attention_share(job: int) -> None:
    """One thread's part of attention: some heads of some rows."""
    heads, shared, size = load_int64(job + _HEADS), load_int64(job + _KEY_HEADS), load_int64(job + _HEAD_SIZE)
    half, capacity, positions = load_int64(job + _HALF), load_int64(job + _CAPACITY), load_int64(job + _POSITIONS)
    of_head = capacity * size * (2 if half else 4)
    work, thread, threads = load_int64(job + _OF_ROWS) * heads, thread_here(), threads_here()
    scores = load_int64(job + _SCORES) + 4 * thread * (capacity + LANES)
    for at in range(work * thread // threads, work * (thread + 1) // threads):
        row, head = at // heads, at % heads
        slot = (row * shared + head // (heads // shared)) * of_head
        _attend(
            load_int64(job + _QUERIES) + 4 * at * size, load_int64(job + _KEYS) + slot, load_int64(job + _VALUES) + slot,
            load_int64(job + _SEEN) + 4 * at * size, size, load_int64(positions + 8 * row) + 1, half, scores,
        )  # fmt: skip


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


@kept("void(intp, intp, intp, intp, intp, int64, intp, intp, intp, intp, intp, int64, int64, int64, intp)", nogil=True)
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
    width, of_queries = load_int64(plan + INPUTS), load_int64(plan + LINEAR * QUERY + OUTPUTS)
    of_keys, inner = load_int64(plan + LINEAR * KEY + OUTPUTS), load_int64(plan + LINEAR * GATE + OUTPUTS)
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
    multiply_all(product, plan, 3, normed, rows, query, 0, threads)

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
    parallel(attention, job, np.uint32(threads), np.uint32(0))

    multiply_all(product, plan + LINEAR * OUT, 1, seen, rows, added, 0, threads)
    for row in range(rows):
        of_row = 4 * row * width
        for j in range(0, width, LANES):
            place = of_row + 4 * j
            store(x + place, add(load(x + place), load(added + place)))
        _norm(x + of_row, load_int64(plan + _LATER_NORM), normed + of_row, width, epsilon)
    multiply_all(product, plan + LINEAR * GATE, 2, normed, rows, gate, 1, threads)
    multiply_all(product, plan + LINEAR * DOWN, 1, gate, rows, added, 0, threads)
    for row in range(rows):
        for j in range(0, width, LANES):
            place = 4 * (row * width + j)
            _write(out + number * row * width, j, half, add(load(x + place), load(added + place)))
