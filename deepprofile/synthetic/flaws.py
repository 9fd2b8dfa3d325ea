"""What is wrong with the demo Earth's archives, as in real ones, and where."""

from dataclasses import dataclass
from datetime import date, timedelta

from deepprofile.synthetic.config import STEPS_PER_DAY, EarthConfig

MIN_DAYS = 20
"""Shorter archives have no flaws: too much of them would be lost."""


@dataclass(frozen=True)
class Flaws:
    """Flaws of the archives; steps of three hours and days count from the first day.

    Attributes:
        smap_missing: steps without a SMAP L4 granule.
        smap_truncated: steps whose granule was cut off.
        smap_superseded: steps that also have a granule of an older version.
        smap_out_of_range: (step, variable, value) of single cells with an impossible value.
        gldas_missing: steps without a GLDAS granule; one day loses most of its steps.
        era5_missing: hours that the ERA5-Land files lack.
    """

    smap_missing: tuple[int, ...] = ()
    smap_truncated: tuple[int, ...] = ()
    smap_superseded: tuple[int, ...] = ()
    smap_out_of_range: tuple[tuple[int, str, float], ...] = ()
    gldas_missing: tuple[int, ...] = ()
    era5_missing: tuple[int, ...] = ()


def plan_flaws(config: EarthConfig) -> Flaws:
    """Spread the flaws over the archive; SMAP L4 keeps at least 6 of 8 steps of every day."""
    if not config.flaws or config.n_days < MIN_DAYS:
        return Flaws()

    def day(part: float) -> int:
        return int(part * config.n_days)

    def step(part: float, of_day: int) -> int:
        return day(part) * STEPS_PER_DAY + of_day

    lost_day, short_day = day(0.60), day(0.75)
    lost = range(lost_day * STEPS_PER_DAY, (lost_day + 1) * STEPS_PER_DAY)
    short = range(short_day * STEPS_PER_DAY + 2, (short_day + 1) * STEPS_PER_DAY)
    return Flaws(
        smap_missing=(step(0.25, 2), step(0.55, 6)),
        smap_truncated=(step(0.40, 4),),
        smap_superseded=(step(0.70, 1),),
        smap_out_of_range=(
            (step(0.15, 3), "snow_depth", 63.0),
            (step(0.35, 5), "heat_flux_ground", 1450.0),
            (step(0.80, 0), "sm_surface", 0.97),
        ),
        gldas_missing=(step(0.20, 4), *lost, *short),
        era5_missing=(
            *range(day(0.30) * 24 + 5, day(0.30) * 24 + 9),
            *range(day(0.85) * 24, (day(0.85) + 1) * 24),
            *range(day(0.90) * 24 + 8, (day(0.90) + 1) * 24),
        ),
    )


def day_of(config: EarthConfig, step: int) -> date:
    """The day of a step of three hours."""
    return config.start + timedelta(days=step // STEPS_PER_DAY)
