"""How much memory a job that writes shards needs."""

from deepprofile.store.template import Template


def job_memory(template: Template, shards_in_flight: int, threads: int = 1) -> int:
    """Predicted memory of a job in bytes, beyond that of an idle worker and of its input.

    The job's output, and for each thread that writes one more shard: rounded, as a copy in the
    order of its chunks, and packed (at worst as large as raw).

    Args:
        template: the cube that is written.
        shards_in_flight: shards of every array (a block of a tile, or a cell) whose values the
            job holds at a time.
        threads: threads of the worker that write at the same time.
    """
    sizes = [array.chunk_bytes for array in template.arrays]
    return shards_in_flight * sum(sizes) + threads * 3 * max(sizes)
