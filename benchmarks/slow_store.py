"""An object store on this machine whose replies come late."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext


@contextmanager
def slow_store(bucket: str, latency: float) -> Iterator[str]:
    """A bucket of a server on this machine, each of whose replies comes so many seconds later."""
    from deepprofile.testing.object_store import active, serve
    from deepprofile.testing.proxy import proxy_before

    with serve() as store:
        store.create_bucket(bucket)
        with proxy_before(store.endpoint) if latency else nullcontext(store) as server:
            if latency:
                server.latency = latency
            with active({**store.environment, "AWS_ENDPOINT_URL": server.endpoint}):
                yield f"s3://{bucket}"
