"""Small systems of linear equations, for fits without negative coefficients."""

from __future__ import annotations

import math
from collections.abc import Sequence

Vector = list[float]


def dot(left: Sequence[float], right: Sequence[float]) -> float:
    """Return the sum of the products."""
    return sum(map(float.__mul__, left, right))


def solve_non_negative(matrix: list[Vector], target: Vector) -> Vector:
    """Return the vector without negatives that fits best; a column of zeros gives a 0.

    Principal pivoting by the least index (Murty), which ends for positive definite matrices.
    """
    free = {index for index, row in enumerate(matrix) if row[index] > 0.0}
    fit = target
    for _ in range(1 << len(target)):
        fit = solve(matrix, target, free)
        for index, (value, goal) in enumerate(zip(fit, target, strict=True)):
            gain = 0.0 if index in free else goal - dot(matrix[index], fit)
            if value < 0.0 or gain > 1e-9 * goal:  # less would be rounding
                free ^= {index}
                break
        else:
            return fit
    return [max(0.0, value) for value in fit]  # rounding makes it circle


def solve(matrix: list[Vector], target: Vector, free: set[int]) -> Vector:
    """Solve positive definite equations, which need no pivoting; unknowns not free are 0."""
    rows = [[*row, goal] for row, goal in zip(matrix, target, strict=True)]
    for index in free:
        pivot = rows[index]
        for other in free - {index}:
            factor = rows[other][index] / pivot[index]
            rows[other] = [x - factor * y for x, y in zip(rows[other], pivot, strict=True)]
    return [row[-1] / row[index] if index in free else 0.0 for index, row in enumerate(rows)]


def pull(ratio: float, most: float) -> float:
    """Return the weight that makes a squared relative error act like one of logarithms, cut."""
    # So that too long and too short predictions are alike, and an absurd time pulls little.
    log = math.log(max(ratio, 0.1))
    error = math.expm1(log)
    return max(-most, min(most, log)) / (error + error * error) if error else 1.0
