"""Stage synthesize: write the demo Earth's product files, stations and truth."""

from dataclasses import replace

from deepprofile import places
from deepprofile.recipe import Recipe, Synthetic
from deepprofile.stages.context import Context, Plan, StageError
from deepprofile.stages.remote import Report, run_on_worker
from deepprofile.synthetic import EarthConfig, centred_window, write_earth

_DONE = "earth.json"


def run(context: Context) -> str:
    """Write the files once; a root that already holds this Earth is left as it is."""
    recipe, root = context.recipe, context.paths.earth
    digest = recipe.digest("synthetic", "period")
    mark = f"{root}/{_DONE}"
    if _read(mark) == digest:
        return f"this demo Earth lies in {root} already"
    if recipe.synthetic is None:
        raise StageError("the recipe has no section 'synthetic'")
    config = earth_config(recipe, recipe.synthetic)
    n_files = run_on_worker(context, "writing product files", _write, config, root)
    places.write_bytes(mark, digest.encode())
    return f"{n_files:,} files in {root}"


def plan(recipe: Recipe) -> Plan:
    """Size of the files, from the numbers of cells and steps."""
    if recipe.synthetic is None:
        return Plan(0, 0, 0, 0)
    config = earth_config(recipe, recipe.synthetic)
    cells = (config.rows[1] - config.rows[0]) * (config.columns[1] - config.columns[0])
    smap = config.n_days * 8 * 45 * cells * 4
    return Plan(1, 0, smap, 1_000_000_000, "SMAP L4 granules; the other files are small")


def earth_config(recipe: Recipe, synthetic: Synthetic) -> EarthConfig:
    """The demo Earth of a recipe."""
    days = recipe.period.days
    config = EarthConfig(
        seed=synthetic.seed,
        start=recipe.period.start,
        n_days=days.stop - days.start,
        hard=synthetic.hard,
    )
    if synthetic.size is None:
        return config
    window = centred_window(synthetic.size)
    return replace(config, rows=window["rows"], columns=window["columns"])


def _write(report: Report, config: EarthConfig, root: str) -> int:
    with places.written_folder(root) as folder:
        return write_earth(config, folder, progress=report).n_files


def _read(url: str) -> str:
    try:
        return places.read_bytes(url).decode()
    except FileNotFoundError:
        return ""
