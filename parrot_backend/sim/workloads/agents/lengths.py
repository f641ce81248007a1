"""Lengths that Helium's data sets would give, drawn from distributions of our own choice."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LengthRange:
    """A log-normal length, cut at both ends.

    Attributes:
        mean_tokens: Mean before it is cut.
        sigma: Standard deviation of the logarithm.
        least_tokens: Shortest.
        most_tokens: Longest.
    """

    mean_tokens: float
    sigma: float
    least_tokens: int
    most_tokens: int

    def draw(self, rng: random.Random) -> int:
        """Return a length."""
        mu = math.log(self.mean_tokens) - self.sigma**2 / 2
        tokens = round(rng.lognormvariate(mu, self.sigma))
        return max(self.least_tokens, min(self.most_tokens, tokens))


#: A paragraph with a table of a financial report, as in TAT-QA.
CONTEXT = LengthRange(600, 0.4, 150, 2000)
#: One question on it.
QUESTION = LengthRange(25, 0.4, 8, 80)
#: Ten reviews of a product.
REVIEWS = LengthRange(900, 0.5, 200, 3000)
#: Name and description of a product.
ITEM = LengthRange(120, 0.6, 20, 500)
#: A balance sheet, a price history or a bundle of news.
DOCUMENT = LengthRange(1500, 0.5, 300, 5000)
#: A few words: a company.
NAME = LengthRange(8, 0.3, 3, 20)
#: An answer that is explained step by step.
ANSWER = LengthRange(250, 0.5, 40, 1000)
#: A critique, or a short summary.
REMARK = LengthRange(180, 0.5, 30, 700)
#: A report.
REPORT = LengthRange(450, 0.4, 100, 1500)
