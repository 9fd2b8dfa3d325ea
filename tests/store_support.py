"""A small cube at the ragged eastern edge of the grid, and jobs that write it, also badly."""

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deepprofile.profile import Layer
from deepprofile.store import (
    Block,
    Region,
    SinglePiece,
    Tile,
    Writer,
    publish,
    soil_moisture_template,
)
from deepprofile.store.layout import blocks

REGION = Region((28, 29), (59, 61))  # 56 x 80 cells: the second tile has 16 columns
LAYERS = (Layer("era5_land", 0.0, 0.07), Layer("era5_land", 0.07, 0.28))
N_DAYS = 40  # one whole block and a part of one


def template(layers=LAYERS, region=REGION, **options):
    return soil_moisture_template("era5_land", region, layers, **options)


def moisture(n_days=N_DAYS, offset=0):
    """Soil moisture of the whole cube, all different where it matters, exact in 12 bits."""
    sizes = (n_days, len(LAYERS), *REGION.shape)
    day, layer, row, column = np.ogrid[tuple(slice(size) for size in sizes)]
    number = day * 97 + layer * 1013 + row * 31 + column * 7 + offset
    return (number % 4096 / np.float32(4096)).astype(np.float32)


@dataclass(frozen=True)
class BlockJob(SinglePiece):
    tile: Tile
    block: Block
    n_days: int = N_DAYS
    fault: str = ""
    marker: str = ""
    offset: int = 0

    @property
    def key(self):
        return f"block {self.block.index} tile {self.tile.row} {self.tile.column}"

    @property
    def fingerprint(self):
        return f"{self.n_days} days, offset {self.offset}"


def jobs(n_days=N_DAYS, **options):
    return [
        BlockJob(tile, block, n_days, **options)
        for block in blocks(0, n_days)
        for tile in REGION.tiles()
    ]


def write_block(writer: Writer, job: BlockJob) -> int:
    """Write one block of one tile, and on the way do what the job's fault says."""
    selection = writer.select(job.tile, job.block)
    index = tuple(selection[dim] for dim in ("time", "y", "x"))
    values = moisture(job.n_days, job.offset)[index[0], :, index[1], index[2]]
    writer.write("soil_moisture", selection, values)
    _inject(job)
    steps = np.full((len(values), *values.shape[2:]), 24, dtype=np.uint8)
    writer.write("n_steps", selection, steps)
    if job.fault == "claim":
        writer.written.append(("soil_moisture", (7, 0, 0, 0)))
    return int(steps[0, 0, 0])


def _inject(job: BlockJob) -> None:
    if job.fault == "always":
        raise RuntimeError("this granule is broken")
    if job.fault == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if job.fault == "once" and not Path(job.marker).exists():
        Path(job.marker).touch()
        raise RuntimeError("only the first time")


def publish_all(client, url, work, n_days=N_DAYS, **metadata):
    """Publish jobs as the stage ingest does; the new snapshot."""
    return publish(
        url,
        template(),
        n_days,
        write_block,
        work,
        client=client,
        message="ingest era5",
        metadata={"stage": "ingest", **metadata},
    ).snapshot_id
