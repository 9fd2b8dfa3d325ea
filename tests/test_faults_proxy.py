"""The proxy that lets an object store be slow, fail and lose replies."""

import time

import botocore.exceptions
import pytest

from deepprofile.testing.object_store import ObjectStore
from deepprofile.testing.proxy import proxy_before


@pytest.fixture(scope="module")
def proxy(object_store):
    with proxy_before(object_store.endpoint) as running:
        yield running


@pytest.fixture
def s3(proxy, object_store):
    proxy.reset()
    client = ObjectStore(proxy.endpoint, object_store.kind, object_store.folder).client()
    yield client
    client.close()
    proxy.reset()


def test_signed_requests_pass_unchanged(proxy, s3, object_store):
    body = bytes(range(256)) * 40
    s3.put_object(Bucket="tests", Key="proxy/a b+c", Body=body)
    assert s3.get_object(Bucket="tests", Key="proxy/a b+c")["Body"].read() == body
    assert s3.head_object(Bucket="tests", Key="proxy/a b+c")["ContentLength"] == len(body)
    ranged = s3.get_object(Bucket="tests", Key="proxy/a b+c", Range="bytes=5-8")
    assert ranged["Body"].read() == body[5:9]
    listed = s3.list_objects_v2(Bucket="tests", Prefix="proxy/")
    assert [entry["Key"] for entry in listed["Contents"]] == ["proxy/a b+c"]
    s3.delete_object(Bucket="tests", Key="proxy/a b+c")
    assert proxy.requests == 6
    assert proxy.bytes_in >= len(body)
    assert proxy.bytes_out >= len(body) + 4


def test_conditions_reach_the_server(s3):
    s3.put_object(Bucket="tests", Key="proxy/once", Body=b"1", IfNoneMatch="*")
    with pytest.raises(botocore.exceptions.ClientError, match="PreconditionFailed"):
        s3.put_object(Bucket="tests", Key="proxy/once", Body=b"2", IfNoneMatch="*")


def test_each_nth_request_fails_by_status_and_by_connection_in_turn(proxy, s3):
    s3.put_object(Bucket="tests", Key="proxy/x", Body=b"x")
    proxy.reset()
    proxy.fail_every = 2
    found = []
    for _ in range(4):
        try:
            found.append(s3.get_object(Bucket="tests", Key="proxy/x")["Body"].read())
        except botocore.exceptions.ClientError as error:
            found.append(error.response["ResponseMetadata"]["HTTPStatusCode"])
        except botocore.exceptions.HTTPClientError:
            found.append("closed")
    assert found == [b"x", 503, b"x", "closed"]
    assert proxy.failed == 2


def test_a_request_whose_reply_is_lost_was_carried_out(proxy, s3):
    proxy.lose_reply = lambda request: request.method == "PUT"
    with pytest.raises(botocore.exceptions.HTTPClientError):
        s3.put_object(Bucket="tests", Key="proxy/lost", Body=b"kept")
    assert s3.get_object(Bucket="tests", Key="proxy/lost")["Body"].read() == b"kept"
    assert [request.path for request in proxy.lost] == ["/tests/proxy/lost"]


def test_latency_is_added_to_each_request(proxy, s3):
    s3.put_object(Bucket="tests", Key="proxy/y", Body=b"y")
    proxy.latency = 0.05
    start = time.monotonic()
    for _ in range(3):
        s3.get_object(Bucket="tests", Key="proxy/y")
    assert time.monotonic() - start >= 0.15  # a lower bound holds however slow the machine is


def test_only_plain_http_is_passed_on():
    with pytest.raises(ValueError, match="expected http://HOST:PORT"), proxy_before("https://s3"):
        pass
