"""Why a scheduler could not be joined, and what to do."""

import socket
import ssl
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from distributed.security import Security

from deepprofile.places import redacted

LOOK_SECONDS = 5
"""How long a look at an address that Dask could not join may take."""
START = "Start one with `dask scheduler`, or give a file of cluster/ or 'local'."
FILE = "a cluster file (kind: address, tls: {ca_file, cert, key})"
VALID = (
    "Expected certificates that the authority of this scheduler has signed, on both sides, and "
    "that are still valid."
)


def explain(address: str, security: Security | None, error: Exception) -> str:
    """The message about a scheduler that could not be joined.

    Args:
        address: ``tcp://host:port`` or ``tls://host:port``.
        security: certificates of a cluster file; None for those of Dask's configuration.
        error: what Dask has raised.

    Returns:
        What was found, and what to do.
    """
    place, cause = redacted(address), _cause(address, error)
    said = redacted(str(cause)) or type(cause).__name__
    if cause is not error and not isinstance(cause, ssl.SSLError):
        if isinstance(cause, socket.gaierror):
            said = f"the host name {urlsplit(address).hostname} is not known"
        elif isinstance(cause, ConnectionRefusedError):
            said = "connection refused: nothing listens at that port"
        return f"no Dask scheduler answers at {place} ({said}). {START}"
    shown = _shown_certificate(address)
    if address.startswith("tls://"):
        found = _of_tls(place, shown, _own_files(security), cause)
        return f"can't join a Dask scheduler at {place}: {found}"
    if shown is None:
        return f"no Dask scheduler answers at {place} ({said}). {START}"
    other = place.replace("tcp://", "tls://", 1)
    return (
        f"can't join a Dask scheduler at {place}: what answers there speaks TLS. Give {other} and "
        f"its certificates in {FILE}."
    )


def _cause(address: str, error: Exception) -> Exception:
    """The error that Dask hides: of TLS, or of one plain try to connect; Dask's own if none."""
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, ssl.SSLError):
            return link
        link = link.__cause__ or link.__context__
    try:
        socket.create_connection(_host_and_port(address), LOOK_SECONDS).close()
    except (OSError, UnicodeError) as found:
        return found
    return error


def _host_and_port(address: str) -> tuple[str, int]:
    parts = urlsplit(address)
    return parts.hostname or "", parts.port or 0


def _shown_certificate(address: str) -> str | None:
    """What a scheduler shows to whoever asks; "" if that is nothing, None if it speaks no TLS."""
    try:
        return ssl.get_server_certificate(_host_and_port(address), timeout=LOOK_SECONDS)
    except OSError as error:
        return "" if "ALERT" in str(error).upper() else None


def _of_tls(place: str, shown: str | None, files: dict[str, str], cause: Exception) -> str:
    if shown is None:
        return (
            f"what answers there does not speak TLS. Give {place.replace('tls://', 'tcp://', 1)}, "
            "without tls in the cluster file; or start the scheduler with --tls-ca-file, "
            "--tls-cert and --tls-key."
        )
    if not files:
        return (
            f"a scheduler at tls:// needs certificates. Name them in {FILE}, or in Dask's "
            "configuration."
        )
    if ended := _expired(shown, files):
        return f"{'; '.join(ended)}. {VALID}"
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted ({cause.verify_message}). {VALID}"
    return f"{redacted(str(cause)) or type(cause).__name__}. {VALID}"


def _own_files(security: Security | None) -> dict[str, str]:
    """Certificates of this side by their keys in a cluster file."""
    chosen = (security or Security()).get_tls_config_for_role("client")
    return {key: path for key in ("ca_file", "cert") if (path := chosen.get(key))}


def _expired(shown: str, files: dict[str, str]) -> list[str]:
    """Which certificates have expired, as far as can be told: of the scheduler, and the own."""
    certificates = {"the certificate of the scheduler": shown}
    for key, path in files.items():
        with suppress(OSError, UnicodeDecodeError):
            certificates[f"the certificate of tls.{key} ({path})"] = Path(path).read_text()
    return [f"{whose} {end}" for whose, pem in certificates.items() if (end := _ended(pem))]


def _ended(pem: str) -> str:
    """That a certificate has expired, and when; "" if it has not, or that can't be told."""
    try:
        from cryptography import x509  # it comes with some of the extras alone
    except ImportError:
        return ""
    try:
        end = x509.load_pem_x509_certificate(pem.encode()).not_valid_after_utc
    except ValueError:
        return ""
    if end > datetime.now(UTC):
        return ""
    return f"has expired (it was valid until {end:%Y-%m-%d %H:%M} UTC)"
