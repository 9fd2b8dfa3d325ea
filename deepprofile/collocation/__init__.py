"""Triple collocation: error variances and weights of three products of one quantity."""

from deepprofile.collocation.anomalies import MARGIN_DAYS, anomalies
from deepprofile.collocation.bootstrap import (
    BLOCK_DAYS,
    SamplingErrors,
    block_bootstrap,
    draw_blocks,
)
from deepprofile.collocation.column import column_mean, column_weights
from deepprofile.collocation.estimates import (
    MIN_SAMPLES,
    Estimates,
    Flag,
    finish,
    flag_attributes,
)
from deepprofile.collocation.fallback import fill_invalid, median_weights
from deepprofile.collocation.labelled import triple_collocation
from deepprofile.collocation.labelled_column import column
from deepprofile.collocation.statistics import Statistics, accumulate, count_days

__all__ = [
    "BLOCK_DAYS",
    "MARGIN_DAYS",
    "MIN_SAMPLES",
    "Estimates",
    "Flag",
    "SamplingErrors",
    "Statistics",
    "accumulate",
    "anomalies",
    "block_bootstrap",
    "column",
    "column_mean",
    "column_weights",
    "count_days",
    "draw_blocks",
    "fill_invalid",
    "finish",
    "flag_attributes",
    "median_weights",
    "triple_collocation",
]
