"""How much memory a job that writes shards needs."""

from deepprofile.store.template import Template


def job_memory(template: Template, shards_in_flight: int, threads: int = 1) -> int:
    """Predicted memory of a job in bytes, beyond that of an idle worker and of its input.

    The job's output, and for each thread that writes one more shard four times: rounded, cut
    into chunks, packed (at worst as large as raw) and on its way to the store.

    Args:
        template: the cube that is written.
        shards_in_flight: shards of every array (a block of a tile, or a cell) whose values the
            job holds at a time.
        threads: threads of the worker that write at the same time.
    """
    sizes = [array.chunk_bytes for array in template.arrays]
    return shards_in_flight * sum(sizes) + threads * 4 * max(sizes)
