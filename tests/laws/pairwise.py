"""A small array in which every two values of two factors meet at least once: the same rows whenever the factors are the same."""

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations, product
from typing import TypeVar

V = TypeVar("V")
Pair = tuple[tuple[str, int], tuple[str, int]]


def pairs(row: Mapping[str, int]) -> set[Pair]:
    """Every two places of a row together with what stands there."""
    return set(combinations(sorted(row.items()), 2))


def array(factors: Mapping[str, Sequence[V]], allowed: Callable[[dict[str, V]], bool]) -> Iterator[dict[str, V]]:
    """Rows that hold every pair which some allowed row holds; each is the one that holds most of what no row before it does.

    What a row adds only shrinks as rows are taken, so that the best by an old count is the best if its new count is no lower.
    """
    every = (dict(zip(factors, places, strict=True)) for places in product(*(range(len(values)) for values in factors.values())))
    rows = [row for row in every if allowed(_values(factors, row))]
    missing = set[Pair]().union(*map(pairs, rows))
    heap = [(-(len(factors) ** 2), number) for number in range(len(rows))]
    while missing:
        _, number = heapq.heappop(heap)
        adds = len(pairs(rows[number]) & missing)
        if heap and (-adds, number) > heap[0]:
            heapq.heappush(heap, (-adds, number))
            continue
        missing -= pairs(rows[number])
        yield _values(factors, rows[number])


def _values(factors: Mapping[str, Sequence[V]], row: Mapping[str, int]) -> dict[str, V]:
    return {name: factors[name][place] for name, place in row.items()}
