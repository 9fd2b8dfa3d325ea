"""Where cubes lie: Icechunk repositories on a local disk or in an object store."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import icechunk
import zarr
from filelock import FileLock, Timeout

from deepprofile import places
from deepprofile.store.messages import RESTORE, cause, is_damaged
from deepprofile.store.presence import is_there
from deepprofile.store.template import KIND, VERSION, Template

MAIN = "main"
"""The branch that readers see."""

FIRST = "1CECHNKREP0F1RSTCMT0"
"""The first snapshot of every Icechunk repository, as its specification says."""
CREATE = "create"
"""What the ledger calls the stage that makes a cube's structure."""
_PARTS = {"attributes", "chunks", "config.yaml", "manifests", "refs", "snapshots", "transactions"}
"""What an Icechunk repository consists of; a creation that was cut short leaves some of them."""

# On a local disk Icechunk warns at every opening that two committers are not safe. `exclusive`
# sees to that.
if "ICECHUNK_LOG" not in os.environ:
    icechunk.set_logs_filter("error")


SILENT = re.compile(r"dispatch failure|timed? ?out", re.IGNORECASE)
"""What Icechunk says of a store that does not answer; any other refusal is an answer."""


class CubeError(Exception):
    """Something about a cube that can't be as it is; the message says what to do."""


class StoreError(CubeError):
    """The disk or the object store below a cube refused what was asked of it, or is silent."""


class NotACubeError(CubeError):
    """There is no cube at a place."""


class LayoutMismatchError(CubeError):
    """A cube exists and has another layout than the one asked for."""


class ConflictError(CubeError):
    """Somebody else is publishing, or has published, to the same cube."""


def local_path(url: str | Path) -> Path | None:
    """Path on the local disk, or None for an object store.

    Raises:
        CubeError: if the URL is neither a path nor ``file://`` nor ``s3://``, or names
            credentials.
    """
    try:
        text = places.check_url(url)
    except places.PlaceError as error:
        raise CubeError(str(error)) from None
    if "://" not in text:
        return Path(text)
    parts = urlsplit(text)
    if parts.scheme == "file":
        return Path(parts.path)
    if parts.scheme == "s3" and parts.netloc:
        return None
    raise CubeError(f"{text}: expected a local path, file:///path or s3://bucket/prefix")


def open_repository(url: str | Path) -> icechunk.Repository:
    """Open the repository of a cube.

    Args:
        url: local path or ``s3://bucket/prefix``. Object stores take the endpoint from
            ``AWS_ENDPOINT_URL``, the region from ``AWS_REGION``, credentials as AWS tools do,
            and are read anonymously with ``AWS_NO_SIGN_REQUEST=YES``.

    Raises:
        NotACubeError: if there is no repository.
    """
    if not str(url):
        raise NotACubeError("no cube is named: the path is empty. Name a folder or s3://…")
    path = local_path(url)
    if path is not None and path.is_file():
        raise NotACubeError(f"{url}: is a file: a cube is a folder. Name the folder.")
    if path is not None and not path.is_dir():
        raise NotACubeError(f"{url}: no such folder. Run the stage that writes this cube first.")
    storage = _storage(url)
    if not _exists(storage, url):
        _check_bucket(url)
        raise NotACubeError(
            f"{url}: holds no cube (an Icechunk repository was expected). "
            "Check the path, or run the stage that writes this cube first."
        )
    return icechunk.Repository.open(storage)


def _exists(storage: icechunk.Storage, url: str | Path) -> bool:
    try:
        if local_path(url) is not None:
            return icechunk.Repository.exists(storage)
        return is_there(storage, url)
    except places.UnreachableError as error:
        raise StoreError(f"{url}: can't be reached: {error}") from None
    except icechunk.IcechunkError as error:
        raise _unreachable(url, error) from None


def _check_bucket(url: str | Path) -> None:
    """Raise CubeError if the bucket of a URL is not there."""
    with suppress(OSError, places.PlaceError):
        try:
            places.check_bucket(url)
        except FileNotFoundError as error:
            raise CubeError(f"{url}: can't be reached: {error}") from None


def _unreachable(url: str | Path, error: icechunk.IcechunkError) -> CubeError:
    if local_path(url) is not None or is_damaged(str(error)):
        from deepprofile.store.faults import explain  # which is built on this module

        return StoreError(f"{url}: {explain(url, str(error))}")
    silent = SILENT.search(str(error)) is not None
    try:
        places.check_bucket(url)
    except (FileNotFoundError, places.ObjectStoreError) as said:  # it knows more of what is wrong
        kind = StoreError if isinstance(said, places.UnreachableError) else CubeError
        return kind(f"{url}: can't be reached: {said}")
    except (OSError, places.PlaceError):  # s3fs knows no more, or is not installed
        pass
    return (StoreError if silent else CubeError)(
        f"{url}: can't be reached: {cause(str(error))}. Check the address, the bucket, the "
        "variables AWS_ENDPOINT_URL and AWS_REGION, and the credentials and what they may do."
    )


def open_or_create(url: str | Path, template: Template) -> icechunk.Repository:
    """Open the repository of a cube, made by ``template`` if there is none.

    Raises:
        LayoutMismatchError: if the cube that exists differs from the template; the message
            names the differences.
        NotACubeError: if the place holds something else.
    """
    repository = _create_repository(url) or open_repository(url)
    if _is_blank(repository):
        _create_structure(repository, template)
    store = repository.readonly_session(MAIN).store
    problems = template.differences(open_group(store, url))
    if problems:
        shown = "\n  ".join(problems[:10])
        more = f"\n  and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise LayoutMismatchError(
            f"{url}: exists with another layout than this {template.kind} cube:\n  {shown}{more}\n"
            "Write to another place, or remove the cube if it is no longer needed."
        )
    return repository


def open_group(store: icechunk.IcechunkStore, url: str | Path) -> zarr.Group:
    """The root group of a cube.

    Raises:
        NotACubeError: if the store holds something else than a cube.
    """
    try:
        group = zarr.open_group(store, mode="r" if store.read_only else "r+")
    except FileNotFoundError as error:
        if store.session.snapshot_id == FIRST:
            raise NotACubeError(f"{url}: the repository is empty. Run its stage again.") from error
        raise NotACubeError(
            f"{url}: the snapshot {store.session.snapshot_id} can't be read, or holds no cube. If "
            f"this was a cube, its metadata are damaged. {RESTORE}"
        ) from error
    if KIND not in group.attrs or VERSION not in group.attrs:
        found = ", ".join(sorted(group.attrs)) or "none"
        raise NotACubeError(
            f"{url}: an Icechunk repository that is not a cube: expected the root attributes "
            f"{KIND} and {VERSION}, found {found}"
        )
    return group


@contextmanager
def exclusive(url: str | Path) -> Iterator[None]:
    """Hold a cube on a local disk for one committer: two of them would lose commits.

    Object stores need no lock, their commits are conditional.

    Raises:
        ConflictError: if another process holds the cube.
    """
    path = local_path(url)
    if path is None:
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(f"{path.name}.lock"), timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise ConflictError(
            f"{url}: another process is publishing to this cube (it holds {lock.lock_file}). "
            "Wait until it has finished and run the stage again; what it did will not be repeated."
        ) from error
    try:
        yield
    finally:
        lock.release()


def _create_repository(url: str | Path) -> icechunk.Repository | None:
    """A new repository, or None where something exists."""
    path = local_path(url)
    if path is not None and path.is_dir() and any(p.name not in _PARTS for p in path.iterdir()):
        return None
    storage = _storage(url)
    if _exists(storage, url):
        return None
    if not _complete_creation(url):
        try:
            icechunk.Repository.create(storage)
        except icechunk.IcechunkError as error:
            # Another driver may be at it, or have done it, or the reply of a success was lost.
            if not _complete_creation(url) and not _exists(_storage(url), url):
                raise _unreachable(url, error) from None
    return open_repository(url)


def _complete_creation(url: str | Path) -> bool:
    """Write the branch of the first snapshot where a creation was cut short between the two.

    Icechunk itself takes only an empty place. Nothing is done where anything else lies.
    """
    files, root = places.filesystem(url)
    try:
        names = {PurePosixPath(path).name for path in files.ls(root, detail=False)}
        snapshots = files.ls(f"{root}/snapshots", detail=False) if names == {"snapshots"} else ()
    except FileNotFoundError:
        return False
    if [PurePosixPath(path).name for path in snapshots] != [FIRST]:
        return False
    branch = f"{root}/refs/branch.{MAIN}"
    files.makedirs(branch, exist_ok=True)
    try:
        files.pipe_file(f"{branch}/ref.json", b'{"snapshot":"%s"}' % FIRST.encode(), mode="create")
    except OSError:  # the tools have several names for "it exists"
        if not files.exists(f"{branch}/ref.json"):
            raise
    return True


def _create_structure(repository: icechunk.Repository, template: Template) -> None:
    """Make the first commit, unless somebody else does so at the same time."""
    session = repository.writable_session(MAIN)
    template.create(session.store)
    try:
        session.commit(f"create {template.kind} cube", {"stage": CREATE})
    except (icechunk.IcechunkError, icechunk.ConflictError):
        if _is_blank(repository):
            raise


def is_unpublished(repository: icechunk.Repository, snapshot: str) -> bool:
    """Whether a snapshot of ``main`` is that of the cube's creation: nothing was published yet."""
    return bool(repository.lookup_snapshot(snapshot).metadata.get("stage") == CREATE)


def _is_blank(repository: icechunk.Repository) -> bool:
    """Whether nothing was ever committed, also after a crash between creation and structure."""
    head = repository.lookup_snapshot(repository.lookup_branch(MAIN))
    return head.parent_id is None


def _storage(url: str | Path) -> icechunk.Storage:
    path = local_path(url)
    if path is not None:
        return icechunk.local_filesystem_storage(str(path.absolute()))
    parts, known = urlsplit(str(url)), places.s3_settings()
    return icechunk.s3_storage(
        bucket=parts.netloc,
        prefix=parts.path.strip("/") or None,
        region=known.region,
        endpoint_url=known.endpoint,
        allow_http=known.endpoint is not None and known.endpoint.startswith("http://"),
        force_path_style=known.endpoint is not None,
        anonymous=known.anonymous or None,
        from_env=None if known.anonymous else True,
    )
