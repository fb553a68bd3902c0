"""``threshold="auto"``: tightening until what was left out is bounded."""

from __future__ import annotations

import warnings

START = 1e-20
TOLERANCE = 1e-6
"""At most this share of a plan's mass may have been dropped."""

ROUNDS = 6
SMALLEST = 1e-300


class Tightening:
    """Tells the next threshold to try. One object for one plan or one batch."""

    def __init__(self) -> None:
        self._round = 0

    def after(self, threshold: float, bounds: list[tuple[float, int]]) -> float | None:
        """The next threshold, or None when ``threshold`` will do.

        Args:
            threshold: the one just used.
            bounds: for each plan the mass that may have been dropped, and the mass of the plan.

        Warns when it gives up, with the share of the plan's mass that may be missing.
        """
        self._round += 1
        over = [(dropped, mass) for dropped, mass in bounds if dropped > TOLERANCE * mass]
        if not over:
            return None
        if self._round == ROUNDS or threshold <= SMALLEST:
            share = max(dropped / mass for dropped, mass in over)
            warnings.warn(
                f"threshold='auto' stopped at {threshold:.0e}: entries of at most {share:.1e} of the plan's mass "
                "were dropped; backend='dense' keeps all of them",
                stacklevel=2,
            )
            return None
        # The bound is linear in the threshold as long as the scaling stays; a factor in hand for when it moves.
        wanted = min(
            threshold * TOLERANCE * mass / dropped * 1e-2 if dropped < 1e250 else threshold**2 for dropped, mass in over
        )
        return max(wanted, threshold**3, SMALLEST)
