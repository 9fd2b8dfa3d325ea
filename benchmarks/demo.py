"""Time and peak memory of the whole demo: every process that it starts, together.

Run as ``python benchmarks/demo.py [RECIPE]`` in the repository. The recipe runs in a folder of its
own under the temporary directory, which is removed afterwards.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import yaml
from memory import INTERVAL, pss


def tree_memory(process: psutil.Process) -> int:
    """Proportional set size of a process and all its children in bytes: shared pages count once."""
    return sum(pss(member) for member in [process, *process.children(recursive=True)])


def run(recipe: Path, root: Path) -> tuple[float, int, int]:
    """Run a recipe in ``root``; returns seconds, peak bytes and exit status."""
    document = yaml.safe_load(recipe.read_text()) | {"root": str(root)}
    moved = root.parent / "recipe.yaml"
    moved.write_text(yaml.safe_dump(document))
    command = [str(Path(sys.executable).with_name("deepprofile")), "run", str(moved)]
    started, peak = time.perf_counter(), 0
    with subprocess.Popen(command) as running:
        watched = psutil.Process(running.pid)
        while running.poll() is None:
            try:
                peak = max(peak, tree_memory(watched))
            except psutil.NoSuchProcess:
                break
            time.sleep(INTERVAL)
        status = running.wait()
    return time.perf_counter() - started, peak, status


def main() -> None:
    """Print the figures and the machine."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", nargs="?", type=Path, default=Path("pipelines/demo.yaml"))
    recipe = parser.parse_args().recipe
    with tempfile.TemporaryDirectory() as folder:
        seconds, peak, status = run(recipe, Path(folder) / "root")
    cores = len(psutil.Process().cpu_affinity())
    memory = psutil.virtual_memory().total / 2**30
    print(f"{recipe}: {seconds:.0f} s, peak {peak / 2**30:.2f} GiB of all processes together")
    print(f"machine: {cores} cores, {memory:.0f} GiB; exit status {status}")
    sys.exit(status)


if __name__ == "__main__":
    main()
