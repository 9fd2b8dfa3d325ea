"""Readings of stations as daily means per sensor, from ISMN archives and from CSV tables."""

from deepprofile.evaluation.stations.archive import list_sensors, read_archive, read_sensors
from deepprofile.evaluation.stations.classes import LABELS, MIXED, cell_labels
from deepprofile.evaluation.stations.daily import (
    GOOD_FLAGS,
    MIN_FRACTION,
    VALID_MAX,
    VALID_MIN,
    daily_means,
    good_readings,
)
from deepprofile.evaluation.stations.merge import merge_records
from deepprofile.evaluation.stations.records import (
    Rejected,
    Sensor,
    StationRecords,
)
from deepprofile.evaluation.stations.table import list_tables, read_table
from deepprofile.evaluation.stations.texture import usda_texture

__all__ = [
    "GOOD_FLAGS",
    "LABELS",
    "MIN_FRACTION",
    "MIXED",
    "VALID_MAX",
    "VALID_MIN",
    "Rejected",
    "Sensor",
    "StationRecords",
    "cell_labels",
    "daily_means",
    "good_readings",
    "list_sensors",
    "list_tables",
    "merge_records",
    "read_archive",
    "read_sensors",
    "read_table",
    "usda_texture",
]
