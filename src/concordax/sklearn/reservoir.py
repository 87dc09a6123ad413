"""A uniform sample of a stream of rows, of bounded size."""

import numpy as np


class Reservoir:
    """Keeps each row seen with the same probability, and the first `size` of them whole (Vitter's algorithm R).

    Args:
        size: rows kept at most.
        seed: seed of the choices.

    Source: Vitter, ACM TOMS 11(1), 1985.

    Example:
        >>> reservoir = Reservoir(3, seed=0)
        >>> reservoir.add(np.arange(5.0)[:, None], np.arange(5), np.ones(5))
        >>> len(reservoir.rows[0]), reservoir.seen
        (3, 5)
    """

    def __init__(self, size: int, seed: int):
        self.size, self.seed, self.seen = size, seed, 0
        self.rows: tuple[np.ndarray, ...] = ()

    def add(self, *columns: np.ndarray) -> None:
        """Takes new rows, given as arrays of the same length."""
        new = len(columns[0])
        # A function of seed and position in the stream alone, so that a stored reservoir goes on as it would have.
        rng = np.random.default_rng([self.seed, self.seen])
        places = np.array([self._place(self.seen + i, rng) for i in range(new)], dtype=int)
        self.seen += new
        if not self.rows:
            self.rows = tuple(column[:0] for column in columns)
        room = self.size - len(self.rows[0])
        kept = tuple(
            np.concatenate([old, column[: max(room, 0)]]) for old, column in zip(self.rows, columns, strict=True)
        )
        for i in range(min(max(room, 0), new), new):
            if places[i] < self.size:
                for old, column in zip(kept, columns, strict=True):
                    old[places[i]] = column[i]
        self.rows = kept

    def _place(self, position: int, rng: np.random.Generator) -> int:
        return position if position < self.size else int(rng.integers(position + 1))
