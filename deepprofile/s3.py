"""How object stores are reached, and what is said when they are not.

The endpoint comes from ``AWS_ENDPOINT_URL``, the region from ``AWS_REGION``, credentials as AWS
tools find them; none are used with ``AWS_NO_SIGN_REQUEST``.
"""

import functools
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from deepprofile.urls import PlaceError, redacted

_TRUE = {"yes", "true", "1"}
_CONNECT_SECONDS, _READ_SECONDS = 10, 60
RETRIES = 5
"""Times that a request for parts of a file is repeated, over some seconds."""
_REFUSED = re.compile(r"status code:? 4\d\d")
"""An answer that a second request would get again."""
_ENDPOINT = re.compile(r"https?://[^/\s]+(/.*)?", re.IGNORECASE)
_CREDENTIALS_LAST = timedelta(minutes=10)
_MISSING_EXTRA = (
    's3:// needs s3fs and obstore; not both are installed: pip install "deepprofile[s3]"'
)


class ObjectStoreError(OSError):
    """An object store that doesn't answer or doesn't let us in; the message says what to check."""


class UnreachableError(ObjectStoreError, ConnectionError):
    """The object store does not answer."""


class DeniedError(ObjectStoreError, PermissionError):
    """The object store does not know the credentials, or they don't allow this."""


@dataclass(frozen=True)
class S3Settings:
    """How object stores are reached, from the environment.

    Attributes:
        endpoint: URL of the server, None for AWS.
        region: its region, None for the tools' own default.
        anonymous: whether requests go out without credentials.
    """

    endpoint: str | None
    region: str | None
    anonymous: bool


def s3_settings() -> S3Settings:
    """What the environment says now; the same for cubes and for all other files.

    Raises:
        PlaceError: if the endpoint is no URL of a server.
    """
    known = os.environ
    name = "AWS_ENDPOINT_URL_S3" if known.get("AWS_ENDPOINT_URL_S3") else "AWS_ENDPOINT_URL"
    endpoint = known.get(name) or None
    if endpoint and not _ENDPOINT.fullmatch(endpoint):
        raise PlaceError(
            f"{name} is {redacted(endpoint)!r}: expected the URL of an object store, such as "
            "https://s3.example.org or http://127.0.0.1:9000"
        )
    return S3Settings(
        endpoint,
        known.get("AWS_REGION") or known.get("AWS_DEFAULT_REGION") or None,
        known.get("AWS_NO_SIGN_REQUEST", "").lower() in _TRUE,
    )


def s3_filesystem() -> Any:
    """One client for each process and environment: other credentials are another client."""
    return _s3_client(os.getpid(), s3_environment())


def s3_environment() -> int:
    """A number that tells one set of AWS variables from another."""
    return hash(frozenset((k, v) for k, v in os.environ.items() if k.startswith("AWS_")))


@functools.lru_cache(maxsize=8)
def _s3_client(process: int, settings: int) -> Any:
    del process, settings
    known = s3_settings()
    config: dict[str, Any] = {"connect_timeout": _CONNECT_SECONDS, "read_timeout": _READ_SECONDS}
    if known.endpoint:
        config["s3"] = {"addressing_style": "path"}
    return _s3_class()(
        anon=known.anonymous,
        endpoint_url=known.endpoint,
        client_kwargs={"region_name": known.region} if known.region else {},
        config_kwargs=config,
        use_listings_cache=False,
        skip_instance_cache=True,
    )


@functools.cache
def _s3_class() -> Any:
    try:
        from botocore.exceptions import (
            BotoCoreError,
            ConnectionError,
            HTTPClientError,
            NoCredentialsError,
        )
        from fsspec.asyn import sync_wrapper
        from s3fs import S3FileSystem
    except ImportError:
        raise PlaceError(_MISSING_EXTRA) from None

    class Store(S3FileSystem):  # type: ignore[misc]
        """s3fs with errors that name the bucket and what to check."""

        async def _call_s3(self, method: str, *args: Any, **options: Any) -> Any:
            where = f"s3://{options.get('Bucket', '')}"
            try:
                return await super()._call_s3(method, *args, **options)
            except NoCredentialsError:
                raise DeniedError(_no_credentials(where)) from None
            except (ConnectionError, HTTPClientError) as error:
                raise UnreachableError(_unreachable(where, error)) from None
            except BotoCoreError as error:
                raise DeniedError(_misset(where, error)) from None
            except PermissionError as error:
                raise DeniedError(_denied(where, error)) from None

        call_s3 = sync_wrapper(_call_s3)

    return Store


def s3_ranges(path: str, starts: Sequence[int], stops: Sequence[int]) -> list[bytes]:
    """Parts of one object, many at a time; each may be shorter at the end of the object.

    s3fs takes ten times the processor time for a request.

    Args:
        path: bucket, slash, key.
        starts: first byte of each part.
        stops: the byte after its last.

    Raises:
        PlaceError: if obstore is not installed.
        FileNotFoundError: if there is no such object.
        DeniedError: if the store refuses.
        ObjectStoreError: if it can't give these parts, of a file that has become shorter.
        UnreachableError: if it fails.
    """
    try:
        import obstore
        from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
    except ImportError:
        raise PlaceError(_MISSING_EXTRA) from None
    bucket, key = path.split("/", 1)
    where = f"s3://{bucket}"
    try:
        store = _range_reader(os.getpid(), s3_environment(), bucket)
        return obstore.get_ranges(store, key, starts=starts, ends=stops, coalesce=0)  # type: ignore[return-value]
    except FileNotFoundError:
        raise FileNotFoundError(f"s3://{path}: there is no such file") from None
    except (PermissionDeniedError, UnauthenticatedError) as error:
        raise DeniedError(_denied(where, error)) from None
    except BaseError as error:
        if _REFUSED.search(str(error)):
            raise ObjectStoreError(f"s3://{path}: {redacted(_shortened(error))}") from None
        raise UnreachableError(_unreachable(where, error)) from None


@functools.lru_cache(maxsize=8)
def _range_reader(process: int, environment: int, bucket: str) -> Any:
    del process, environment
    from obstore.store import S3Store

    known = s3_settings()
    options: dict[str, Any] = {"skip_signature": True} if known.anonymous else {}
    if not known.anonymous:
        options["credential_provider"] = _credentials
    if known.endpoint:
        options["endpoint"] = known.endpoint
    if region := known.region or _region():
        options["region"] = region
    return S3Store(
        bucket,
        virtual_hosted_style_request=not known.endpoint,
        client_options={
            "allow_http": True,
            "connect_timeout": timedelta(seconds=_CONNECT_SECONDS),
            "timeout": timedelta(seconds=_READ_SECONDS),
        },
        retry_config={"max_retries": RETRIES},
        **options,
    )


def _region() -> str | None:
    """The region that the profile of AWS tools names."""
    from botocore.session import get_session

    return get_session().get_config_variable("region")  # type: ignore[no-any-return]


def _credentials() -> Any:
    """What AWS tools find, for obstore, which asks again when they have expired."""
    from botocore.session import get_session

    found = get_session().get_credentials()
    if found is None:
        raise DeniedError(_no_credentials("s3://"))
    frozen = found.get_frozen_credentials()
    return {
        "access_key_id": frozen.access_key,
        "secret_access_key": frozen.secret_key,
        "token": frozen.token,
        "expires_at": datetime.now(UTC) + _CREDENTIALS_LAST,
    }


def _no_credentials(where: str) -> str:
    return (
        f"{where}: there are no credentials. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
        "AWS_NO_SIGN_REQUEST=YES for a bucket that anyone may read"
    )


def _unreachable(where: str, error: Exception) -> str:
    endpoint = s3_settings().endpoint
    at = f"at {redacted(endpoint)}" if endpoint else "of AWS"
    return (
        f"{where}: the object store {at} does not answer ({redacted(_shortened(error))}). Check "
        "the network and AWS_ENDPOINT_URL"
    )


def _misset(where: str, error: Exception) -> str:
    return (
        f"{where}: the object store can't be asked: {redacted(str(error))}. Check AWS_PROFILE and "
        "the other AWS variables"
    )


def _denied(where: str, error: Exception) -> str:
    said = redacted(_shortened(error)).rstrip(". ")
    return (
        f"{where}: the object store does not let us in: {said}. Check "
        "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION, and what these credentials may do"
    )


def _shortened(error: Exception) -> str:
    """What the store said, without the dumps around it."""
    said = re.search("<Message>(.*?)</Message>", str(error), re.DOTALL)
    return said[1] if said else str(error).split("\n\nDebug source")[0]
