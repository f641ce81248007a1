"""The distribution of some outputs' lengths, in little memory; what is older counts for less."""

from __future__ import annotations

from array import array

from parrot_backend.core.output_forecast import OutputForecast

#: Lengths below 16 are told apart; above, each power of two has 8 bins, so a bin is 1/8 wide.
_MANTISSA_BITS = 3
_EXACT = 2 << _MANTISSA_BITS

#: No output is longer than this; what is reported beyond is counted as this.
_MAX_TOKENS = 2**20

#: An output counts half as much when so many have come after it: applications change.
_HALF_LIFE = 64
_GROWTH = 2.0 ** (1 / _HALF_LIFE)
_MAX_WEIGHT = 2.0**16

#: A forecast stands until so small a share of new outputs has come: to make it takes time.
_STANDS = 16

#: Share of outputs that the high forecast covers.
_HIGH = 0.9


class LengthSketch:
    """Weighted counts of lengths in bins that grow with the length.

    The weight of each new output is a little larger than that of the one before, which is the same
    as if all before faded.
    """

    __slots__ = (
        "_bins",
        "_first",
        "_forecast",
        "_made_at",
        "_next_weight",
        "_sum_tokens",
        "_sum_weight",
        "num_seen",
    )

    def __init__(self) -> None:
        self.num_seen = 0
        self._forecast: OutputForecast | None = None
        self._made_at = 0
        self._first = 0
        self._bins = array("f")
        self._next_weight = 1.0
        self._sum_weight = 0.0
        self._sum_tokens = 0.0

    @property
    def num_bins(self) -> int:
        """How many bins it holds."""
        return len(self._bins)

    def add(self, tokens: int, *, is_cut: bool) -> None:
        """Take in an output; one that was cut at its limit would have been longer.

        Such a one is longer than any other as far as the high forecast goes, and as long as it was
        as far as the mean goes.
        """
        tokens = min(max(0, tokens), _MAX_TOKENS)
        weight = self._next_weight
        self.num_seen += 1
        self._sum_weight += weight
        self._sum_tokens += weight * tokens
        if not is_cut:
            position = self._position(_bin_of(tokens))
            self._bins[position] += weight
        self._next_weight *= _GROWTH
        if self._next_weight > _MAX_WEIGHT:
            self._scale(1 / self._next_weight)

    def forecast(self) -> OutputForecast | None:
        """Return what is expected of the next output; None if too many were cut to know."""
        if self.num_seen - self._made_at > self._made_at // _STANDS:
            self._forecast, self._made_at = self._make(), self.num_seen
        return self._forecast

    def _make(self) -> OutputForecast | None:
        wanted, seen = _HIGH * self._sum_weight, 0.0
        for position, weight in enumerate(self._bins):
            seen += weight
            # Single precision: the sum of the bins may fall a little short of the total.
            if weight and seen >= wanted * (1 - 1e-6):
                high_tokens = max(1, _longest_in(self._first + position))
                mean_tokens = self._sum_tokens / self._sum_weight
                return OutputForecast(mean_tokens, high_tokens, self.num_seen)
        return None

    def _position(self, index: int) -> int:
        """Return where the bin with an index is; make it if it is not there."""
        if not self._bins:
            self._first = index
        if index < self._first:
            self._bins = array("f", bytes(4 * (self._first - index))) + self._bins
            self._first = index
        position = index - self._first
        if position >= len(self._bins):
            self._bins.extend([0.0] * (position + 1 - len(self._bins)))
        return position

    def _scale(self, factor: float) -> None:
        self._next_weight *= factor
        self._sum_weight *= factor
        self._sum_tokens *= factor
        for position, weight in enumerate(self._bins):
            self._bins[position] = weight * factor


def _bin_of(tokens: int) -> int:
    if tokens < _EXACT:
        return tokens
    exponent = tokens.bit_length() - _MANTISSA_BITS - 1
    return (exponent << _MANTISSA_BITS) + (tokens >> exponent)


def _longest_in(index: int) -> int:
    """Return the longest output that a bin stands for."""
    if index < _EXACT:
        return index
    exponent = (index >> _MANTISSA_BITS) - 1
    mantissa = index - (exponent << _MANTISSA_BITS)
    return ((mantissa + 1) << exponent) - 1
