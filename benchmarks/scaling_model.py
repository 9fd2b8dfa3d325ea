"""What ten years of the globe take on 1, 8, 64 and more GPUs, and what bounds it: on paper.

Run with ``python benchmarks/scaling.py model [--rates FILE]``. The work is that of
``pipelines/global.yaml``, the rates are those that ``deepprofile benchmark`` measured; what is
assumed beside them stands in `deepprofile.stages.sites`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from deepprofile.rates import Rates
from deepprofile.recipe import load_recipe
from deepprofile.stages.chain import plans
from deepprofile.stages.sites import sides, with_gpus

RECIPE = Path(__file__).parents[1] / "pipelines" / "global.yaml"


def measure(rates: Rates, gpus: Sequence[int]) -> dict[int, dict[str, float]]:
    """Seconds of cores, GPUs, store and scheduler in the stage predict, by number of GPUs."""
    plan = plans(load_recipe(RECIPE))["predict"]
    return {
        n: {
            side: sum(parts.values())
            for side, parts in sides(plan, rates, with_gpus(rates, n)).items()
        }
        for n in gpus
    }


def report(found: Mapping[int, Mapping[str, float]]) -> None:
    """A line for each number of GPUs."""
    for n, parts in found.items():
        slowest = max(parts, key=parts.__getitem__)
        named = ", ".join(f"{side} {seconds:.0f}" for side, seconds in parts.items())
        print(f"{n:4} GPUs: {parts[slowest]:6.0f} s, bound by {slowest} (seconds: {named})")
