"""The stages of a recipe, in order: each is one module with ``run`` and ``plan``.

A module is imported when its stage is needed: processes that never predict hold no torch.
"""

from collections.abc import Sequence
from importlib import import_module
from types import ModuleType

from deepprofile import events
from deepprofile.cluster.base import ClusterSpec
from deepprofile.cluster.connecting import spec_of
from deepprofile.places import local_path
from deepprofile.recipe import Recipe
from deepprofile.stages.context import Context, Plan, StageError
from deepprofile.stages.publication import stages_with_failures
from deepprofile.store import Need, check_memory, check_spec

STAGES = ("synthesize", "ingest", "collocate", "sample", "train", "predict", "evaluate")
GROWING = ("ingest", "predict")
"""Stages of a recipe whose period has no end."""


def module_of(stage: str) -> ModuleType:
    """The module of a stage."""
    return import_module(f"deepprofile.stages.{stage}")


def names() -> str:
    """Names of all stages in order, for messages."""
    return ", ".join(STAGES)


def select(recipe: Recipe, chosen: Sequence[str] | None) -> list[str]:
    """Stages to run, in order.

    Args:
        recipe: decides whether the demo Earth is made.
        chosen: names that the user gave; None or empty means all.

    Raises:
        StageError: for a name that is no stage, or ``synthesize`` without a synthetic Earth.
    """
    unknown = [name for name in chosen or () if name not in STAGES]
    if unknown:
        raise StageError(f"there is no stage {unknown[0]!r}; the stages are {names()}")
    if recipe.synthetic is None and "synthesize" in (chosen or ()):
        raise StageError(
            "stage synthesize needs a section 'synthetic' in the recipe; this one reads real files"
        )
    all_of_them = GROWING if recipe.period.grows else STAGES
    return [
        name
        for name in STAGES
        if name in (chosen or all_of_them) and (recipe.synthetic or name != "synthesize")
    ]


def run(chosen: Sequence[str], context: Context) -> None:
    """Run stages one after another, each with its title, progress, summary and time.

    Raises:
        JobError: if the jobs of a stage would not fit into a worker; nothing was started.
        StageError: if a stage can't go on.
    """
    if context.recipe.period.grows:
        raise StageError(
            "period.end is missing in the recipe: its period grows day by day. Run `deepprofile "
            "daily` with it, or give period.end to run stages over a period."
        )
    if context.retry_failed:
        failed = stages_with_failures(context, chosen)
        for name in chosen:
            if name not in failed:
                line = f"[bold]{name}[/bold]\n  no failed job to repeat"
                events.say(context.console, line, "stage skipped", skipped=name)
        chosen = failed
    # The devices are asked for at once, not only when the stages before predict have run.
    settled = {"predict": _settled(context)} if "predict" in chosen else {}
    if "train" in chosen and context.recipe.training.device == "cuda":
        _check_training(context)
    contexts = {name: settled.get(name, context) for name in chosen}
    needs = [_plan(name, its_own.recipe).need(name) for name, its_own in contexts.items()]
    check_memory(context.client, needs)
    for name, its_own in contexts.items():
        with events.stage(name, context.console) as running:
            running.summary = module_of(name).run(its_own)


def _check_training(context: Context) -> None:
    from deepprofile.stages.devices import training_workers

    training_workers(context)


def _settled(context: Context) -> Context:
    from deepprofile.stages.devices import settle_device

    return settle_device(context)


def _plan(name: str, recipe: Recipe) -> Plan:
    made: Plan = module_of(name).plan(recipe)
    return made


def plans(recipe: Recipe, spec: ClusterSpec | None = None) -> dict[str, Plan]:
    """What every stage would do, by its name and in order; no data is touched.

    Args:
        recipe: the recipe.
        spec: the cluster on which it would run; where it has GPUs, ``auto`` predicts on them.
    """
    recipe = recipe if spec is None else _with_gpus_of(spec, recipe)
    return {name: _plan(name, recipe) for name in select(recipe, None)}


def check_inputs(recipe: Recipe, chosen: Sequence[str]) -> None:
    """Stop before anything is made or started where there are no folders of granules.

    Granules in an object store are looked for by the stage itself.

    Args:
        recipe: the recipe.
        chosen: the stages that will run.

    Raises:
        StageError: names the key of each folder, and what to do.
    """
    if "ingest" not in chosen or "synthesize" in chosen:
        return
    places = {f"products.{name}.url": source.url for name, source in recipe.products.items()}
    paths = {key: local_path(url) for key, url in places.items()}
    gone = [f"  {key}: {path}" for key, path in paths.items() if path and not path.exists()]
    if gone:
        shown = "\n".join(gone)
        what = "Run the stage synthesize first." if recipe.synthetic else "Correct the recipe."
        raise StageError(f"no granules, there is no such file or folder:\n{shown}\n{what}")


def check_cluster(
    recipe: Recipe, chosen: Sequence[str], cluster: str, more: Sequence[Need] = ()
) -> None:
    """Stop before a cluster is started whose file gives workers too little memory for a stage.

    Args:
        recipe: the recipe.
        chosen: the stages that will run.
        cluster: a file of ``cluster/``, a scheduler's address or ``local``.
        more: memory that is needed beside that of the stages.

    Raises:
        ClusterError: if the file is not valid.
        JobError: names all stages that don't fit, and what to change.
    """
    spec = spec_of(cluster)
    if spec.worker_memory is None:
        return
    recipe = _with_gpus_of(spec, recipe)
    check_spec(spec, cluster, [*(_plan(name, recipe).need(name) for name in chosen), *more])


def _with_gpus_of(spec: ClusterSpec, recipe: Recipe) -> Recipe:
    """The recipe with the device that ``auto`` comes to on a cluster, as far as its file tells."""
    if recipe.predict.device != "auto" or not spec.has_gpus:
        return recipe
    return recipe.model_copy(
        update={"predict": recipe.predict.model_copy(update={"device": "cuda"})}
    )
