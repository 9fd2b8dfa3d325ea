"""Cubes: templates, tiles and blocks, jobs, publication, reading."""

from deepprofile.store.cube import open_cube, open_pinned
from deepprofile.store.expire import SAFETY, Expiry, expire
from deepprofile.store.inspect import Summary, describe, render
from deepprofile.store.jobs import (
    Job,
    JobError,
    JobFailure,
    SinglePiece,
    WritingJob,
    run_jobs,
)
from deepprofile.store.kinds import (
    coefficients_template,
    collocation_template,
    samples_template,
    smap_l4_template,
    soil_moisture_template,
    static_template,
)
from deepprofile.store.layout import Block, Region, Tile
from deepprofile.store.ledger import (
    NO_CUBE,
    Commit,
    done_jobs,
    head,
    history,
    planned_head,
    settings_of,
)
from deepprofile.store.memory import Need, check_memory, check_spec
from deepprofile.store.plain import PlainCopy, copy_plain
from deepprofile.store.read import layers_of, read_cells, read_tile
from deepprofile.store.repository import (
    ConflictError,
    CubeError,
    LayoutMismatchError,
    NotACubeError,
    StoreError,
)
from deepprofile.store.rounding import round_mantissa
from deepprofile.store.snapshots import Moment, moment_of
from deepprofile.store.template import Template
from deepprofile.store.transaction import AllFailedError, Outcome, PublicationError, publish
from deepprofile.store.verify import Verification, render_verification, repair, verify
from deepprofile.store.writer import WriteError, Writer, region_of

__all__ = [
    "NO_CUBE",
    "SAFETY",
    "AllFailedError",
    "Block",
    "Commit",
    "ConflictError",
    "CubeError",
    "Expiry",
    "Job",
    "JobError",
    "JobFailure",
    "LayoutMismatchError",
    "Moment",
    "Need",
    "NotACubeError",
    "Outcome",
    "PlainCopy",
    "PublicationError",
    "Region",
    "SinglePiece",
    "StoreError",
    "Summary",
    "Template",
    "Tile",
    "Verification",
    "WriteError",
    "Writer",
    "WritingJob",
    "check_memory",
    "check_spec",
    "coefficients_template",
    "collocation_template",
    "copy_plain",
    "describe",
    "done_jobs",
    "expire",
    "head",
    "history",
    "layers_of",
    "moment_of",
    "open_cube",
    "open_pinned",
    "planned_head",
    "publish",
    "read_cells",
    "read_tile",
    "region_of",
    "render",
    "render_verification",
    "repair",
    "round_mantissa",
    "run_jobs",
    "samples_template",
    "settings_of",
    "smap_l4_template",
    "soil_moisture_template",
    "static_template",
    "verify",
]
