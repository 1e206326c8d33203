"""Layers of an encoder of BERT's kind for whole texts, one behind the other without padding between them.

What is between the products of a layer takes a quarter of torch's time: starting operations, copies of heads, attention to padding.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import cfunc, njit

from tabml.text._torch.kernels.base import (
    BIAS,
    BYTES,
    FIELDS,
    INPUTS,
    KIND,
    LINEAR,
    NO_TRANSPOSE,
    OUTPUTS,
    PACKED,
    ROW_MAJOR,
    WEIGHT,
    kept,
    parallel,
    sgemm,
    thread_here,
    threads_here,
)
from tabml.text._torch.kernels.quantized import multiply_bytes, quantize
from tabml.text._torch.kernels.vectors import (
    FEATURES,
    LANES,
    add,
    error_function,
    exponential,
    fma,
    larger,
    largest,
    load,
    load_bfloat16,
    load_int64,
    load_one,
    multiply,
    splat,
    store,
    store_int64,
    store_one,
    tile,
    total,
    transpose,
    words,
)

BUILT_ON = "cb7f6e44da302d8c"
"""The first digits of the SHA-256 of ``vectors.py``, ``base.py`` and ``quantized.py``."""

QUERY, KEY, VALUE, OUT, INNER, DOWN = range(6)
"""The linear layers of a layer, in the order of its plan; all in MKL's format, or all bytes."""
_NORM, _NORM_BIAS, _LATER_NORM, _LATER_NORM_BIAS, _SIZE = (6 * LINEAR + 8 * at for at in range(5))
PLAN = 6 * FIELDS + 7
"""Numbers of a layer's plan: its linear layers; addresses of weights and biases (float32) of the norm behind attention and of the
last one; the size of a head; as float32 epsilon and the factor of scores."""
_EPSILON, _FACTOR = 6 * LINEAR + 40, 6 * LINEAR + 48

_WIDE = "+avx512f" in FEATURES
_TALL = 8 if _WIDE else 4
"""Queries of which the scores are computed at once: their sums stay in registers."""
_BLOCK = 128
"""Rows whose inner values are computed at once: they stay in a core's cache."""
_tile, _double = tile(_TALL, 1), tile(_TALL, 2 if _WIDE else 1)
_DOUBLE = 2 * LANES if _WIDE else LANES


@njit
def _product(share: int, linear: int, x: int, rows: int, y: int, q: int, of_rows: int, threads: int) -> None:
    """x · Wᵀ, without a bias; of bytes, of what :func:`_rounded` has made of x."""
    inputs, outputs = load_int64(linear + INPUTS), load_int64(linear + OUTPUTS)
    if load_int64(linear + KIND) == BYTES:
        multiply_bytes(share, linear, q, of_rows, rows, y, threads)
        return
    sgemm(
        ROW_MAJOR, NO_TRANSPOSE, PACKED, rows, outputs, inputs,
        x, inputs, load_int64(linear + WEIGHT), inputs, np.float32(0), y, outputs,
    )  # fmt: skip


@njit
def _rounded(linear: int, x: int, rows: int, q: int, of_rows: int) -> None:
    """What products with bytes are given of x."""
    if load_int64(linear + KIND) == BYTES:
        quantize(x, rows, load_int64(linear + INPUTS), q, of_rows)


# A job is what the threads of one step share; addresses and numbers of 64 bits

_Q, _K, _V, _STARTS, _TEXTS, _OF_LAYER, _SCRATCH, _OF_THREAD = range(0, 64, 8)
_X, _ADDED, _BIAS, _ROWS, _WIDTH, _WEIGHT, _LATER_BIAS, _SMALL = range(0, 64, 8)


@njit
def _attend(
    q: int, k: int, v: int, length: int, wide: int, size: int, bias: int, later: int, factor: float, scratch: int
) -> None:
    """softmax(Q Kᵀ) V of one head of one text, in place of the queries.

    A bias of keys adds the same to all scores of a query, which softmax takes away again; one of values is added at the end.
    """
    step, across = 4 * wide, (length + LANES - 1) // LANES * LANES
    keys, row = scratch, 4 * across
    scaled = keys + size * row
    scores = scaled + 4 * _TALL * size
    found = scores + _TALL * row
    by, low = splat(factor), splat(np.float32(-np.inf))
    for t in range(0, across, LANES):
        for j in range(0, size, LANES):
            transpose(k + t * step + 4 * j, step, keys + j * row + 4 * t, row)
    for first in range(0, length, _TALL):
        count = min(_TALL, length - first)
        for m in range(count):
            for j in range(0, 4 * size, 4 * LANES):
                query = add(load(q + (first + m) * step + j), load(bias + j))
                store(scaled + 4 * m * size + j, multiply(query, by))
        for m in range(count, _TALL):
            for j in range(0, 4 * size, 4 * LANES):
                store(scaled + 4 * m * size + j, splat(np.float32(0)))
        t = 0
        while t + _DOUBLE <= across:
            _double(scaled, 4 * size, keys + 4 * t, row, scores + 4 * t, row, size)
            t += _DOUBLE
        while t < across:
            _tile(scaled, 4 * size, keys + 4 * t, row, scores + 4 * t, row, size)
            t += LANES
        for m in range(count):
            at = scores + m * row
            for t in range(length, across):
                store_one(at + 4 * t, np.float32(-np.inf))
            most = low
            for t in range(0, row, 4 * LANES):
                most = larger(load(at + t), most)
            down, shares = splat(-largest(most)), splat(np.float32(0))
            for t in range(0, row, 4 * LANES):
                share = exponential(add(load(at + t), down))
                store(at + t, share)
                shares = add(shares, share)
            store_one(scaled + 4 * m, np.float32(1) / total(shares))
        j = 0
        while j + _DOUBLE <= size:
            _double(scores, row, v + 4 * j, step, found + 4 * j, 4 * size, length)
            j += _DOUBLE
        while j < size:
            _tile(scores, row, v + 4 * j, step, found + 4 * j, 4 * size, length)
            j += LANES
        for m in range(count):
            share = splat(load_one(scaled + 4 * m))
            for j in range(0, 4 * size, 4 * LANES):
                store(q + (first + m) * step + j, fma(load(found + 4 * m * size + j), share, load(later + j)))


@njit
def _attention(job: int, thread: int, threads: int) -> None:
    layer, starts = load_int64(job + _OF_LAYER), load_int64(job + _STARTS)
    size, factor = load_int64(layer + _SIZE), load_one(layer + _FACTOR)
    bias, later = load_int64(layer + LINEAR * QUERY + BIAS), load_int64(layer + LINEAR * VALUE + BIAS)
    wide = load_int64(layer + LINEAR * QUERY + OUTPUTS)
    heads = wide // size
    work = load_int64(job + _TEXTS) * heads
    scratch = load_int64(job + _SCRATCH) + 4 * thread * load_int64(job + _OF_THREAD)
    for at in range(work * thread // threads, work * (thread + 1) // threads):
        text, head = starts + 8 * (at // heads), 4 * size * (at % heads)
        first = load_int64(text)
        place = 4 * first * wide + head
        _attend(
            load_int64(job + _Q) + place, load_int64(job + _K) + place, load_int64(job + _V) + place,
            load_int64(text + 8) - first, wide, size, bias + head, later + head, factor, scratch,
        )  # fmt: skip


@kept("void(intp)", cfunc)
def attention_share(job: int) -> None:
    """One thread's part of attention: some heads of some texts."""
    _attention(job, thread_here(), threads_here())


@njit
def _gelu(job: int, thread: int, threads: int) -> None:
    """x · Φ(x) of x + b, in place (Hendrycks and Gimpel 2016)."""
    bias, rows, width = load_int64(job + _BIAS), load_int64(job + _ROWS), load_int64(job + _WIDTH)
    half, root, one = splat(np.float32(0.5)), splat(np.float32(np.sqrt(0.5))), splat(np.float32(1))
    for row in range(rows * thread // threads, rows * (thread + 1) // threads):
        at = load_int64(job + _X) + 4 * row * width
        for j in range(0, 4 * width, 4 * LANES):
            x = add(load(at + j), load(bias + j))
            store(at + j, multiply(multiply(x, half), add(error_function(multiply(x, root)), one)))


@kept("void(intp)", cfunc)
def gelu_share(job: int) -> None:
    """One thread's part of the activation: some rows."""
    _gelu(job, thread_here(), threads_here())


@njit
def _norm_row(x: int, whole: float, width: int, weight: int, later: int, small: float) -> None:
    """(x - mean) / √(variance + ε) · w + b, in place (Ba et al. 2016); the sum is known."""
    share = np.float32(1) / np.float32(width)
    down, squares = splat(-whole * share), splat(np.float32(0))
    for j in range(0, 4 * width, 4 * LANES):
        value = add(load(x + j), down)
        squares = fma(value, value, squares)
    by = splat(np.float32(1) / np.sqrt(total(squares) * share + small))
    for j in range(0, 4 * width, 4 * LANES):
        value = multiply(add(load(x + j), down), by)
        store(x + j, fma(value, load(weight + j), load(later + j)))


@njit
def _norm(job: int, thread: int, threads: int) -> None:
    """The layer norm of x + added + bias, in place of x."""
    rows, width, bias = load_int64(job + _ROWS), load_int64(job + _WIDTH), load_int64(job + _BIAS)
    weight, later, small = load_int64(job + _WEIGHT), load_int64(job + _LATER_BIAS), load_one(job + _SMALL)
    for row in range(rows * thread // threads, rows * (thread + 1) // threads):
        x, added = load_int64(job + _X) + 4 * row * width, load_int64(job + _ADDED) + 4 * row * width
        found = splat(np.float32(0))
        for j in range(0, 4 * width, 4 * LANES):
            value = add(add(load(added + j), load(bias + j)), load(x + j))
            store(x + j, value)
            found = add(found, value)
        _norm_row(x, total(found), width, weight, later, small)


@kept("void(intp)", cfunc)
def norm_share(job: int) -> None:
    """One thread's part of a norm: some rows."""
    _norm(job, thread_here(), threads_here())


@njit
def _normed(
    share: int, x: int, added: int, rows: int, linear: int, weight: int, later: int, small: float, threads: int
) -> None:
    job = words()
    store_int64(job + _X, x)
    store_int64(job + _ADDED, added)
    store_int64(job + _BIAS, load_int64(linear + BIAS))
    store_int64(job + _ROWS, rows)
    store_int64(job + _WIDTH, load_int64(linear + OUTPUTS))
    store_int64(job + _WEIGHT, weight)
    store_int64(job + _LATER_BIAS, later)
    store_one(job + _SMALL, small)
    if threads == 1:
        _norm(job, 0, 1)
    else:
        parallel(share, job, np.uint32(threads), np.uint32(0))


def scratch_of(longest: int, size: int) -> int:
    """Numbers that a thread needs room for to attend to a text.

    Args:
        longest: Tokens of the longest text.
        size: Of a head.
    """
    across = (longest + LANES - 1) // LANES * LANES
    return size * across + _TALL * (2 * size + across)


def room_of(rows: int, *, width: int, queries: int, inner: int, scratch: int, threads: int) -> int:
    """Numbers that :func:`encoder_layers` needs room for.

    Args:
        rows: Tokens of all texts.
        width: Of hidden states.
        queries: Outputs of the layer of queries, and of keys and values.
        inner: Outputs of the layer behind attention.
        scratch: See :func:`scratch_of`.
        threads: That compute.
    """
    block = threads * _BLOCK
    rounded = max(rows * max(width, queries), block * max(width, inner)) // 4 + 2 * max(rows, block)
    return rows * (3 * queries + width) + LANES * queries + block * inner + threads * scratch + rounded


@kept("void(intp, intp, intp, intp, intp, int64, intp, int64, intp, int64, int64, int64, intp)", nogil=True)
def encoder_layers(
    attention: int,
    gelu: int,
    norm: int,
    panels: int,
    plan: int,
    layers: int,
    x: int,
    rows: int,
    starts: int,
    texts: int,
    scratch: int,
    threads: int,
    room: int,
) -> None:
    """All layers of an encoder.

    Args:
        attention: The address of ``attention_share``.
        gelu: The address of ``gelu_share``.
        norm: The address of ``norm_share``.
        panels: The address of ``panel_share``.
        plan: Of all layers, one behind the other.
        layers: How many.
        x: (rows, width), float32: what comes from the embeddings, and is changed to the output.
        rows: Tokens of all texts.
        starts: (texts + 1,), int64: the row of each text's first token, and ``rows``.
        texts: How many.
        scratch: See :func:`scratch_of`.
        threads: That compute.
        room: For :func:`room_of` float32.
    """
    job = words()
    block = threads * _BLOCK
    for layer in range(plan, plan + 8 * PLAN * layers, 8 * PLAN):
        queries, inner = load_int64(layer + OUTPUTS), load_int64(layer + LINEAR * INNER + OUTPUTS)
        width, small = load_int64(layer + INPUTS), load_one(layer + _EPSILON)
        q = room
        k = q + 4 * rows * queries
        v = k + 4 * (rows + LANES) * queries
        added = v + 4 * rows * queries
        between = added + 4 * rows * width
        of_threads = between + 4 * block * inner
        of_rows = of_threads + 4 * threads * scratch
        rounded = of_rows + 8 * max(rows, block)

        _rounded(layer, x, rows, rounded, of_rows)
        _product(panels, layer + LINEAR * QUERY, x, rows, q, rounded, of_rows, threads)
        _product(panels, layer + LINEAR * KEY, x, rows, k, rounded, of_rows, threads)
        _product(panels, layer + LINEAR * VALUE, x, rows, v, rounded, of_rows, threads)
        store_int64(job + _Q, q)
        store_int64(job + _K, k)
        store_int64(job + _V, v)
        store_int64(job + _STARTS, starts)
        store_int64(job + _TEXTS, texts)
        store_int64(job + _OF_LAYER, layer)
        store_int64(job + _SCRATCH, of_threads)
        store_int64(job + _OF_THREAD, scratch)
        if threads == 1:
            _attention(job, 0, 1)
        else:
            parallel(attention, job, np.uint32(threads), np.uint32(0))
        out = layer + LINEAR * OUT
        _rounded(out, q, rows, rounded, of_rows)
        _product(panels, out, q, rows, added, rounded, of_rows, threads)
        _normed(norm, x, added, rows, out, load_int64(layer + _NORM), load_int64(layer + _NORM_BIAS), small, threads)

        first_linear, last_linear = layer + LINEAR * INNER, layer + LINEAR * DOWN
        for first in range(0, rows, block):
            count, at = min(block, rows - first), 4 * first * width
            _rounded(first_linear, x + at, count, rounded, of_rows)
            _product(panels, first_linear, x + at, count, between, rounded, of_rows, threads)
            store_int64(job + _X, between)
            store_int64(job + _BIAS, load_int64(first_linear + BIAS))
            store_int64(job + _ROWS, count)
            store_int64(job + _WIDTH, inner)
            if threads == 1:
                _gelu(job, 0, 1)
            else:
                parallel(gelu, job, np.uint32(threads), np.uint32(0))
            _rounded(last_linear, between, count, rounded, of_rows)
            _product(panels, last_linear, between, count, added + at, rounded, of_rows, threads)
        _normed(
            norm, x, added, rows, last_linear, load_int64(layer + _LATER_NORM),
            load_int64(layer + _LATER_NORM_BIAS), small, threads,
        )  # fmt: skip


# What is before the layers, and behind them

_WORDS, _PLACES, _TYPES, _HALF, _WIDE_AS, _GAIN, _SHIFT, _LEAST = range(0, 64, 8)
EMBEDDING = 8
"""Numbers of an embedding's plan: addresses of the tables of words, positions and types (or 0), whether they are bfloat16, not
float32, their width, addresses of weight and bias (float32) of the norm, and as float32 epsilon."""


@njit
def _entry(table: int, row: int, width: int, j: int, half: int) -> Any:
    if half:
        return load_bfloat16(table + 2 * (row * width + j))
    return load(table + 4 * (row * width + j))


@kept("void(intp, intp, intp, intp, int64, int64, intp)", nogil=True)
def embed(plan: int, ids: int, types: int, starts: int, texts: int, first: int, x: int) -> None:
    """What the layers begin with: the entries of each token, added and normed.

    Args:
        plan: Of the embedding.
        ids: (rows,), int64.
        types: (rows,), int64; is not read where there is no table of types.
        starts: As for :func:`encoder_layers`.
        texts: How many.
        first: The position of a text's first token.
        x: (rows, width), float32, is written.
    """
    words, places, of_types = load_int64(plan + _WORDS), load_int64(plan + _PLACES), load_int64(plan + _TYPES)
    half, width, small = load_int64(plan + _HALF), load_int64(plan + _WIDE_AS), load_one(plan + _LEAST)
    weight, later = load_int64(plan + _GAIN), load_int64(plan + _SHIFT)
    for text in range(texts):
        begin = load_int64(starts + 8 * text)
        for row in range(begin, load_int64(starts + 8 * text + 8)):
            word, to, found = load_int64(ids + 8 * row), x + 4 * row * width, splat(np.float32(0))
            for j in range(0, width, LANES):
                value = _entry(words, word, width, j, half)
                if of_types:
                    value = add(value, _entry(of_types, load_int64(types + 8 * row), width, j, half))
                value = add(value, _entry(places, first + row - begin, width, j, half))
                store(to + 4 * j, value)
                found = add(found, value)
            _norm_row(to, total(found), width, weight, later, small)


@kept("void(intp, intp, int64, int64, int64, intp)", nogil=True)
def pool(x: int, starts: int, texts: int, width: int, mean: int, y: int) -> None:
    """A vector of each text.

    Args:
        x: (rows, width), float32.
        starts: As for :func:`encoder_layers`.
        texts: How many.
        width: Of a row.
        mean: Whether of all tokens, or only the first one.
        y: (texts, width), float32, is written.
    """
    for text in range(texts):
        begin, end = load_int64(starts + 8 * text), load_int64(starts + 8 * text + 8)
        if not mean:
            end = begin + 1
        share = splat(np.float32(1) / np.float32(end - begin))
        for j in range(0, 4 * width, 4 * LANES):
            found = splat(np.float32(0))
            for row in range(begin, end):
                found = add(found, load(x + 4 * row * width + j))
            store(y + 4 * text * width + j, multiply(found, share))
