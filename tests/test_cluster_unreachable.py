"""Schedulers that can't be joined: whose fault it is, and what to do."""

import sys
from pathlib import Path

import dask
import pytest
from cluster_support import free_ports, make_certificates, scheduler, tls_options

from deepprofile.cluster import ClusterError, connect
from deepprofile.cluster.connecting import spec_of
from deepprofile.cluster.remote import AddressSpec


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return make_certificates(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def expired(files):
    """Of the same authority and key, and no more valid."""
    return {**files, "cert": str(Path(files["cert"]).with_name("expired.pem"))}


@pytest.fixture(scope="module")
def with_expired(expired):
    with scheduler(*tls_options(expired), protocol="tls") as address:
        yield address


@pytest.fixture(scope="module")
def secured(files):
    with scheduler(*tls_options(files), protocol="tls") as address:
        yield address


@pytest.fixture(scope="module")
def plain():
    with scheduler() as address:
        yield address


def refused(address, tls=None):
    """What is said about a scheduler that can't be joined."""
    with pytest.raises(ClusterError) as error:
        connect(AddressSpec(kind="address", address=address, tls=tls))
    return str(error.value)


def test_the_scheduler_s_expired_certificate_is_named(with_expired, files):
    said = refused(with_expired, files)
    assert "the certificate of the scheduler has expired (it was valid until 20" in said
    assert "tls.cert" not in said


def test_both_expired_certificates_are_named(with_expired, expired):
    said = refused(with_expired, expired)
    for words in ("of the scheduler has expired", f"of tls.cert ({expired['cert']}) has expired"):
        assert words in said


def test_without_cryptography_an_expired_certificate_is_still_named(
    with_expired, files, monkeypatch
):
    monkeypatch.setitem(sys.modules, "cryptography", None)
    assert "not accepted (certificate has expired)" in refused(with_expired, files)


def test_the_own_expired_certificate_is_named(secured, files, expired):
    said = refused(secured, expired)
    assert f"tls.cert ({expired['cert']}) has expired (it was valid until 20" in said
    assert "of the scheduler has expired" not in said


def test_expired_certificates_of_dask_s_configuration_are_named(secured, expired):
    keys = {"ca_file": "ca-file", "cert": "client.cert", "key": "client.key"}
    names = {f"distributed.comm.tls.{key}": expired[name] for name, key in keys.items()}
    with dask.config.set(names):
        assert f"({expired['cert']}) has expired" in refused(secured)


def test_certificates_of_another_authority_are_explained(secured, tmp_path):
    said = refused(secured, make_certificates(tmp_path))
    assert "not accepted (" in said and "the authority of this scheduler has signed" in said


def test_a_scheduler_without_tls_is_recognised(plain, files):
    said = refused(plain.replace("tcp", "tls"), files)
    assert "does not speak TLS" in said and f"Give {plain}, without tls" in said


def test_who_speaks_no_tls_to_a_scheduler_with_it_learns_of_tls(secured):
    said = refused(secured.replace("tls", "tcp"))
    assert f"speaks TLS. Give {secured} and" in said and "tls: {ca_file, cert, key}" in said


@pytest.mark.parametrize("protocol", ["tcp", "tls"])
def test_a_closed_port_and_an_unknown_host_are_told_apart(protocol, files, monkeypatch):
    monkeypatch.setattr("deepprofile.cluster.remote.CONNECT_SECONDS", 1)
    tls = files if protocol == "tls" else None
    said = refused(f"{protocol}://127.0.0.1:{free_ports(1)[0]}", tls)
    assert "connection refused: nothing listens" in said and "`dask scheduler`" in said
    said = refused(f"{protocol}://no-host.invalid:8786", tls)
    assert "the host name no-host.invalid is not known" in said


@pytest.mark.parametrize(
    "address",
    ["http://x:1", "tcp://", "tcp://host", "tcp://:8786", "tls://host:0", "tcp://host:99999"],
)
def test_an_address_that_is_none_is_refused_as_it_is_read(address):
    with pytest.raises(ClusterError) as error:
        spec_of(address)
    for words in (f"found '{address}'", "expected tcp://HOST:PORT or tls://HOST:PORT"):
        assert words in str(error.value)


@pytest.mark.parametrize("address", ["tcp://[::1]:8786", "tls://scheduler.example.org:8786"])
def test_addresses_of_schedulers_are_taken(address):
    assert spec_of(address).address == address
