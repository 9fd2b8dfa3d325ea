"""Write the demo Earth: product files, relief, stations, and the truth beside them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deepprofile.synthetic.config import EarthConfig
from deepprofile.synthetic.flaws import Flaws, plan_flaws
from deepprofile.synthetic.gridded_files import write_era5, write_gldas
from deepprofile.synthetic.products import make_products
from deepprofile.synthetic.smap import make_smap
from deepprofile.synthetic.smap_files import write_smap
from deepprofile.synthetic.stations import place_stations, write_stations
from deepprofile.synthetic.truth import make_truth, write_truth

Progress = Callable[[float, str], None]
CORE_STATIONS = 3
"""Stations that make a cell a core cell."""


@dataclass(frozen=True)
class EarthFiles:
    """What was written.

    Attributes:
        root: the folder.
        smap_l4: folder of the SPL4SMGP granules.
        era5_land: folder of the monthly ERA5-Land files.
        gldas: folder of the GLDAS granules.
        dem: the relief.
        stations: the station archive.
        truth: the truth; read it with ``read_truth``.
        flaws: what is wrong with the archives on purpose.
        core_cells: (row, column) on the global grid of the cells with at least three stations.
        extra_cells: the same of those with one or two.
        n_cells: number of land cells.
        n_files: number of files.
    """

    root: Path
    smap_l4: Path
    era5_land: Path
    gldas: Path
    dem: Path
    stations: Path
    truth: Path
    flaws: Flaws
    core_cells: tuple[tuple[int, int], ...]
    extra_cells: tuple[tuple[int, int], ...]
    n_cells: int
    n_files: int


def write_earth(
    config: EarthConfig, root: str | Path, progress: Progress | None = None
) -> EarthFiles:
    """Make a demo Earth and write all its files.

    Args:
        config: what to make; the same config gives the same files.
        root: the folder, made if needed; files of the same names are replaced.
        progress: called with the share that is done (0-1) and what is being done.
    """
    root = Path(root)
    root.mkdir(parents=True, exist_ok=True)
    tell = progress or (lambda share, what: None)
    flaws = plan_flaws(config)
    tell(0.0, "running the true soil columns")
    truth = make_truth(config)
    tell(0.25, "running the model behind SMAP L4")
    smap = make_smap(config, truth)
    tell(0.45, "making ERA5-Land and GLDAS")
    products = make_products(config, truth)

    def part(low: float, high: float, what: str) -> Callable[[float], None]:
        return lambda share: tell(low + share * (high - low), what)

    n_files = write_smap(
        smap,
        truth.domain,
        config,
        flaws,
        root / "smap_l4",
        part(0.50, 0.70, "writing SMAP L4 granules"),
    )
    n_files += write_gldas(
        products.gldas, config, flaws, root / "gldas", part(0.70, 0.80, "writing GLDAS granules")
    )
    n_files += write_era5(
        products.era5, config, flaws, root / "era5_land", part(0.80, 0.92, "writing ERA5-Land")
    )
    stations = place_stations(config, truth, truth.independent | products.masks["no_product"])
    write_stations(
        stations, config, truth, root / "stations.zip", part(0.92, 0.99, "writing stations")
    )
    truth.domain.dem[["elevation"]].to_netcdf(root / "dem.nc", engine="h5netcdf")
    write_truth(truth, config, products.masks, root / "truth.nc")
    tell(1.0, "demo Earth written")
    counts = np.bincount([s.cell for s in stations], minlength=truth.domain.n_cells)
    domain = truth.domain

    def named(chosen: np.ndarray) -> tuple[tuple[int, int], ...]:
        cells = np.flatnonzero(chosen)
        rows, columns = domain.rows[domain.row[cells]], domain.columns[domain.column[cells]]
        return tuple(zip(rows.tolist(), columns.tolist(), strict=True))

    return EarthFiles(
        root=root,
        smap_l4=root / "smap_l4",
        era5_land=root / "era5_land",
        gldas=root / "gldas",
        dem=root / "dem.nc",
        stations=root / "stations.zip",
        truth=root / "truth.nc",
        flaws=flaws,
        core_cells=named(counts >= CORE_STATIONS),
        extra_cells=named((counts > 0) & (counts < CORE_STATIONS)),
        n_cells=domain.n_cells,
        n_files=n_files + 3,
    )
