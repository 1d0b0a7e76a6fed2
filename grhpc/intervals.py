"""How sure a share or a mean is: 95 % intervals and p-values, from the standard library alone.

Does not know: benchmarks, verifiers. Invariant: pure and deterministic; no result is NaN.
"""

import math
from collections.abc import Sequence

Interval = tuple[float, float]

Z = 1.959964  # of a two-sided 95 % interval


def wilson(k: float, n: float, quantile: float = Z) -> Interval:
    """The 95 % Wilson score interval of k successes in n trials, n > 0; both may be fractions, as effective numbers
    are. `quantile` is Student's where the variance was estimated from few questions."""
    p, z2 = k / n, quantile * quantile
    middle = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = quantile / (1 + z2 / n) * math.sqrt(max(0.0, p * (1 - p)) / n + z2 / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def combined(values: Sequence[float], intervals: Sequence[Interval]) -> Interval:
    """The interval of the plain mean of independent estimates, from their own intervals, one-sided squares added
    (MOVER: Zou and Donner, 2008). Stays within the range that the intervals stay in."""
    num, mean = len(values), math.fsum(values) / len(values)
    below = math.fsum((v - low) ** 2 for v, (low, _) in zip(values, intervals, strict=True))
    above = math.fsum((high - v) ** 2 for v, (_, high) in zip(values, intervals, strict=True))
    return mean - math.sqrt(below) / num, mean + math.sqrt(above) / num


def student_p(t: float, df: float) -> float:
    """The two-sided p-value of Student's t with df > 0 degrees of freedom."""
    return _incomplete_beta(df / 2, 0.5, df / (df + t * t))


def student_quantile(df: float, p: float = 0.05) -> float:
    """The t that a Student variable of df > 0 degrees of freedom passes, on either side, with probability p."""
    low, high = 0.0, 1.0
    while student_p(high, df) > p:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if student_p(middle, df) > p else (low, middle)
    return (low + high) / 2


def binomial_p(k: int, n: int) -> float:
    """The exact two-sided p-value of k heads in n throws of a fair coin; 1 where nothing was thrown."""
    ways = tail = 1
    for i in range(min(k, n - k)):
        ways = ways * (n - i) // (i + 1)
        tail += ways
    share: float = tail * 2 / 2**n
    return min(1.0, share)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment: reject where it is under 5 %, and one false rejection in all has at most 5 %."""
    adjusted, least = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = least
    return adjusted


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function, by its continued fraction on the side where that converges fast."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    if x < (a + 1) / (a + b + 2):
        return front * _fraction(a, b, x) / a
    return 1 - front * _fraction(b, a, 1 - x) / b


def _fraction(a: float, b: float, x: float) -> float:
    """The continued fraction 1/(1+ d1/(1+ d2/(1+ ...))) of the incomplete beta function, by Lentz's method."""
    tiny = 1e-300
    c, d = 1.0, 1 / ((1 - (a + b) * x / (a + 1)) or tiny)
    result = d
    for m in range(1, 1000):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        change = 1.0
        for term in (even, odd):
            d = 1 / ((1 + term * d) or tiny)
            c = (1 + term / c) or tiny
            change = c * d
            result *= change
        if abs(change - 1) < 1e-15:
            break
    return result
