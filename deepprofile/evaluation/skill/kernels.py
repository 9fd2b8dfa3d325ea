"""Compiled loops over series: sums, anomalies, ranks, bootstrap replicates, counts and means.

Every series is worked on by itself and in the order of its days, so a result does not depend on
which series are computed together. All loops release the interpreter lock.
"""

import numba
import numpy as np

N_SUMS = 8
"""Sums of a series: n, x, y, xx, yy, xy, d, dd, in the order of `metrics.Statistics`."""


@numba.njit(cache=True, nogil=True)
def sums(x, y, mask, offset):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Sums over the days of a mask, shape (series, 8), of float64 and bool (series, time)."""
    n_series, n_days = x.shape
    result = np.zeros((n_series, N_SUMS))
    for s in range(n_series):
        n = sx = sy = xx = yy = xy = sd = dd = 0.0
        for t in range(n_days):
            if mask[s, t]:
                a, b = x[s, t] - offset, y[s, t] - offset
                d = a - b
                n += 1.0
                sx += a
                sy += b
                xx += a * a
                yy += b * b
                xy += a * b
                sd += d
                dd += d * d
        result[s] = (n, sx, sy, xx, yy, xy, sd, dd)
    return result


@numba.njit(cache=True, nogil=True)
def departures(values, mask, half, min_days):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Departures from the mean of ``half`` days on either side, and where they exist."""
    n_series, n_days = values.shape
    result = np.zeros((n_series, n_days))
    exists = np.zeros((n_series, n_days), dtype=np.bool_)
    total = np.zeros(n_days + 1)
    count = np.zeros(n_days + 1, dtype=np.int64)
    for s in range(n_series):
        for t in range(n_days):
            known = mask[s, t]
            total[t + 1] = total[t] + (values[s, t] if known else 0.0)
            count[t + 1] = count[t] + known
        for t in range(n_days):
            if not mask[s, t]:
                continue
            first, last = max(t - half, 0), min(t + half + 1, n_days)
            n = count[last] - count[first]
            if n >= min_days:
                result[s, t] = values[s, t] - (total[last] - total[first]) / n
                exists[s, t] = True
    return result, exists


@numba.njit(cache=True, nogil=True)
def mean_ranks(values, order, number):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Ranks 1, 2, ... of the first ``number`` places of each order, ties sharing their mean."""
    result = np.zeros(values.shape)
    for s in range(values.shape[0]):
        n = number[s]
        first = 0
        while first < n:
            value = values[s, order[s, first]]
            last = first + 1
            while last < n and values[s, order[s, last]] == value:
                last += 1
            for place in range(first, last):
                result[s, order[s, place]] = (first + last + 1) / 2
            first = last
    return result


@numba.njit(cache=True, nogil=True)
def replicate_sums(x, y, mask, draws, block_days, min_blocks, offset):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Sums of every replicate of every series, shape (series, replicates, 8).

    ``draws`` of shape (blocks, replicates) are uniform numbers; block i of a replicate begins at
    first day + floor(draw · (span - block_days + 1)), where the span reaches from the first to the
    last day of the series' mask. Zero where the span is shorter than ``min_blocks`` blocks.
    """
    n_series, n_days = x.shape
    n_replicates = draws.shape[1]
    result = np.zeros((n_series, n_replicates, N_SUMS))
    running = np.zeros((n_days + 1, N_SUMS))
    block = np.zeros((n_days + 1, N_SUMS))
    for s in range(n_series):
        first, last = n_days, -1
        for t in range(n_days):
            for k in range(N_SUMS):
                running[t + 1, k] = running[t, k]
            if mask[s, t]:
                first, last = min(first, t), t
                a, b = x[s, t] - offset, y[s, t] - offset
                d = a - b
                running[t + 1, 0] += 1.0
                running[t + 1, 1] += a
                running[t + 1, 2] += b
                running[t + 1, 3] += a * a
                running[t + 1, 4] += b * b
                running[t + 1, 5] += a * b
                running[t + 1, 6] += d
                running[t + 1, 7] += d * d
        span = last - first + 1
        if span < max(min_blocks, 1) * block_days:
            continue
        n_starts = span - block_days + 1
        for i in range(n_starts):
            for k in range(N_SUMS):
                block[i, k] = running[first + i + block_days, k] - running[first + i, k]
        for i in range(-(-span // block_days)):
            for r in range(n_replicates):
                start = int(draws[i, r] * n_starts)
                for k in range(N_SUMS):
                    result[s, r, k] += block[start, k]
    return result


@numba.njit(cache=True, nogil=True)
def joint_counts(x, y, mask, edges):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Days of a mask in classes of y (first axis) and x, both between the same equal steps.

    A value on an edge is in the upper class; values beyond the edges are in the outermost classes.
    """
    n_classes = len(edges) - 1
    scale = n_classes / (edges[n_classes] - edges[0])
    counts = np.zeros((n_classes, n_classes), dtype=np.int64)
    for s in range(x.shape[0]):
        for t in range(x.shape[1]):
            if mask[s, t]:
                i = _class_of(y[s, t], edges, scale)
                counts[i, _class_of(x[s, t], edges, scale)] += 1
    return counts


@numba.njit(cache=True, nogil=True)
def _class_of(value, edges, scale):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    last = len(edges) - 2
    at = min(max((value - edges[0]) * scale, 0.0), last)
    i = int(at)
    while i > 0 and value < edges[i]:
        i -= 1
    while i < last and value >= edges[i + 1]:
        i += 1
    return i


@numba.njit(cache=True, nogil=True)
def span_means(values, starts):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Means of the finite days of spans, float32 (series, spans); NaN of a span without any.

    Span k begins at day ``starts[k]`` and ends before the next one's; the last one at the end.
    """
    n_series, n_days = values.shape
    n_spans = len(starts)
    result = np.full((n_series, n_spans), np.nan, dtype=np.float32)
    for s in range(n_series):
        for k in range(n_spans):
            total, count = 0.0, 0
            last = starts[k + 1] if k + 1 < n_spans else n_days
            for t in range(starts[k], last):
                if np.isfinite(values[s, t]):
                    total += values[s, t]
                    count += 1
            if count:
                result[s, k] = total / count
    return result
