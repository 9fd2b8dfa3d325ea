"""What becomes of cell-days that are no samples, in words; see `deepprofile.model.coverage`."""

from collections.abc import Mapping

WORDS = {
    "before_first_window": "before the first full window",
    "missing_features": "without all static features",
    "gap_in_forcing": "with a gap of the forcing in the window",
    "no_target": "without a target",
}
"""Why a cell-day is no sample; the first that applies counts."""


def skipped(counts: Mapping[str, int]) -> str:
    """Cell-days that are no samples by reason, in words."""
    return ", ".join(f"{counts[k]:,} {text}" for k, text in WORDS.items() if counts[k]) or "none"
