"""What can be chosen about the demo Earth, and the sizes of its products' errors."""

from dataclasses import dataclass, field
from datetime import date, timedelta

STEPS_PER_DAY = 8
"""The column and SMAP L4 advance in steps of three hours."""


@dataclass(frozen=True)
class SmapErrors:
    """How the model behind SMAP L4 departs from the truth.

    Attributes:
        parameters: spread of each soil parameter about the truth's (standard deviation of its
            logarithm; 0.12 means 12 % off).
        rain_spread: spread of the rain of a spell (standard deviation of its logarithm).
        rain_memory: decorrelation time of that error in days.
        rain_bias: spread of a cell's lasting rain bias (standard deviation of its logarithm).
        drizzle: share of the dry steps in which drizzle falls that the truth has not.
        nudging_gain: share of the distance to the observed surface taken at each update.
        nudging_noise: noise of the observed surface soil moisture in m³ m⁻³.
        nudging_days: days from one update to the next.
    """

    parameters: dict[str, float] = field(
        default_factory=lambda: {
            "porosity": 0.12,
            "exponent": 0.30,
            "conductivity": 0.40,
            "suction": 0.40,
            "decay": 0.40,
            "root_depth": 0.40,
            "evaporation": 0.25,
            "wilting": 0.25,
            "leaf_minimum": 0.30,
            "leaf_maximum": 0.30,
        }
    )
    rain_spread: float = 0.6
    rain_memory: float = 30.0
    rain_bias: float = 0.12
    drizzle: float = 0.04
    nudging_gain: float = 0.25
    nudging_noise: float = 0.03
    nudging_days: int = 3


@dataclass(frozen=True)
class GriddedErrors:
    """Errors of ERA5-Land or GLDAS on its own grid: scale x truth + bias + error.

    The error at depth z (m) is the sum of a surface and a root part with standard deviations
    ``surface`` exp(-z / 0.12) and ``root`` (1 - 0.5 exp(-z / 0.3)).

    Attributes:
        bias: standard deviation of the lasting bias in m³ m⁻³.
        scale: standard deviation of the factor about 1.
        surface: size of the surface error in m³ m⁻³.
        root: size of the root error in m³ m⁻³.
        surface_memory: decorrelation time of the surface error in days.
        root_memory: decorrelation time of the root error in days.
        shared: correlation of the errors of the two products.
    """

    bias: float = 0.03
    scale: float = 0.15
    surface: float = 0.06
    root: float = 0.03
    surface_memory: float = 5.0
    root_memory: float = 30.0
    shared: float = 0.2


@dataclass(frozen=True)
class EarthConfig:
    """One demo Earth; the same config always gives the same files.

    Attributes:
        seed: seed of every random number.
        start: first day.
        n_days: number of days.
        rows: first row of the window on the global 9 km grid, and the one after the last.
        columns: the same for columns. The window must lie in the northern Aegean, where the
            relief and the coast are drawn; the default straddles the corner of four tiles at
            row 280, column 2176.
        hard: a world in which the surface of SMAP L4 is not the best of the three products.
        core_cells: cells with at least three stations.
        extra_cells: cells with one or two stations.
        station_hours: hours from one station reading to the next.
        spin_up_days: days that the columns run before ``start``.
        flaws: whether archives have missing, broken, superseded granules and bad values.
        independent_cells: side in cells of the north-western square in which the errors of all
            three products are independent and forget within about a day.

    Raises:
        ValueError: if the window or the time span is not possible.
    """

    seed: int = 2026
    start: date = date(2015, 3, 31)
    n_days: int = 731
    rows: tuple[int, int] = (267, 294)
    columns: tuple[int, int] = (2161, 2188)
    hard: bool = False
    core_cells: int = 10
    extra_cells: int = 40
    station_hours: int = 3
    spin_up_days: int = 365
    flaws: bool = True
    independent_cells: int = 8

    def __post_init__(self) -> None:
        """Check the window and the time span."""
        for name, (first, stop), (low, high) in (
            ("rows", self.rows, WINDOW_ROWS),
            ("columns", self.columns, WINDOW_COLUMNS),
        ):
            if not low <= first < stop <= high:
                raise ValueError(
                    f"window {name} {first} to {stop} are not inside {low} to {high}, "
                    "the part of the grid in which the demo coast is drawn"
                )
        if self.n_days < 1 or self.spin_up_days < 0:
            raise ValueError(
                f"n_days {self.n_days} and spin_up_days {self.spin_up_days} are not possible: "
                "expected at least 1 day and no negative spin-up"
            )
        if 24 % self.station_hours or self.station_hours % 3:
            raise ValueError(
                f"station_hours {self.station_hours} is not possible: expected 3, 6, 12 or 24"
            )

    @property
    def stop(self) -> date:
        """Day after the last."""
        return self.start + timedelta(days=self.n_days)

    @property
    def smap_errors(self) -> SmapErrors:
        """Errors of the model behind SMAP L4."""
        if self.hard:
            return SmapErrors(
                rain_spread=1.0, rain_bias=0.3, drizzle=0.08, nudging_gain=0.4, nudging_noise=0.10
            )
        return SmapErrors()

    @property
    def era5_errors(self) -> GriddedErrors:
        """Errors of ERA5-Land."""
        return GriddedErrors(surface=0.02) if self.hard else GriddedErrors()

    @property
    def gldas_errors(self) -> GriddedErrors:
        """Errors of GLDAS."""
        return GriddedErrors(surface=0.02, root=0.022) if self.hard else GriddedErrors(root=0.022)


WINDOW_ROWS = (262, 298)
WINDOW_COLUMNS = (2156, 2194)
CORNER = (280, 2176)
"""Row and column of the corner of four tiles that the window straddles."""


def centred_window(size: int) -> dict[str, tuple[int, int]]:
    """``rows`` and ``columns`` of a square window of ``size`` cells around the four-tile corner."""
    names = ("rows", "columns")
    return {
        name: (corner - size // 2, corner - size // 2 + size)
        for name, corner in zip(names, CORNER, strict=True)
    }
