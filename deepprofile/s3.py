"""How object stores are reached, and what is said when they are not.

The endpoint comes from ``AWS_ENDPOINT_URL``, the region from ``AWS_REGION``, credentials as AWS
tools find them; none are used with ``AWS_NO_SIGN_REQUEST``.
"""

import functools
import os
from dataclasses import dataclass
from typing import Any

from deepprofile.urls import PlaceError, redacted

_TRUE = {"yes", "true", "1"}
_CONNECT_SECONDS, _READ_SECONDS = 10, 60


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
    """What the environment says now; the same for cubes and for all other files."""
    known = os.environ
    return S3Settings(
        known.get("AWS_ENDPOINT_URL_S3") or known.get("AWS_ENDPOINT_URL") or None,
        known.get("AWS_REGION") or known.get("AWS_DEFAULT_REGION") or None,
        known.get("AWS_NO_SIGN_REQUEST", "").lower() in _TRUE,
    )


def s3_filesystem() -> Any:
    """One client for each process and environment: other credentials are another client."""
    settings = frozenset((k, v) for k, v in os.environ.items() if k.startswith("AWS_"))
    return _s3_client(os.getpid(), hash(settings))


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
        from botocore.exceptions import BotoCoreError, NoCredentialsError
        from s3fs import S3FileSystem
    except ImportError:
        raise PlaceError(
            's3:// needs s3fs, which is not installed: pip install "deepprofile[s3]"'
        ) from None

    class Store(S3FileSystem):  # type: ignore[misc]
        """s3fs with errors that name the bucket and what to check."""

        async def _call_s3(self, method: str, *args: Any, **options: Any) -> Any:
            where = f"s3://{options.get('Bucket', '')}"
            try:
                return await super()._call_s3(method, *args, **options)
            except NoCredentialsError:
                raise DeniedError(_no_credentials(where)) from None
            except BotoCoreError as error:
                raise UnreachableError(_unreachable(where, error)) from None
            except PermissionError as error:
                raise DeniedError(_denied(where, error)) from None

    return Store


def _no_credentials(where: str) -> str:
    return (
        f"{where}: there are no credentials. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
        "AWS_NO_SIGN_REQUEST=YES for a bucket that anyone may read"
    )


def _unreachable(where: str, error: Exception) -> str:
    endpoint = s3_settings().endpoint
    at = f"at {redacted(endpoint)}" if endpoint else "of AWS"
    return (
        f"{where}: the object store {at} does not answer ({redacted(str(error))}). Check the "
        "network and AWS_ENDPOINT_URL"
    )


def _denied(where: str, error: Exception) -> str:
    return (
        f"{where}: the object store does not let us in: {redacted(str(error))} Check "
        "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION, and what these credentials may do"
    )
