"""The S3 server of the tests: what it lets in, whom its variables reach, and that it ends."""

import os
import subprocess
import sys
import urllib.error
import urllib.request

import pytest
import s3fs

from deepprofile.testing import object_store as servers


def test_it_takes_and_gives_with_its_variables_alone(s3_url):
    filesystem = s3fs.S3FileSystem(skip_instance_cache=True)
    filesystem.pipe(f"{s3_url}/a/b", b"content")
    assert filesystem.cat(f"{s3_url}/a/b") == b"content"


def test_workers_know_it_also_when_they_started_first(client, object_store):
    found = client.run(os.getenv, "AWS_ENDPOINT_URL")
    assert set(found.values()) == {object_store.endpoint}


def test_it_asks_for_credentials_except_in_the_public_bucket(object_store, s3_url):
    if object_store.kind != servers.SEAWEEDFS:
        pytest.skip("this server does not check credentials")
    filesystem = s3fs.S3FileSystem(skip_instance_cache=True)
    filesystem.pipe(f"{s3_url}/closed", b"closed")
    filesystem.pipe(f"s3://{servers.PUBLIC}/open", b"open")
    with urllib.request.urlopen(f"{object_store.endpoint}/{servers.PUBLIC}/open") as answer:
        assert answer.read() == b"open"
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(f"{object_store.endpoint}/{s3_url.removeprefix('s3://')}/closed")
    reader = s3fs.S3FileSystem(
        key=object_store.reader["AWS_ACCESS_KEY_ID"],
        secret=object_store.reader["AWS_SECRET_ACCESS_KEY"],
        skip_instance_cache=True,
    )
    assert reader.cat(f"{s3_url}/closed") == b"closed"
    with pytest.raises(PermissionError):
        reader.pipe(f"{s3_url}/closed", b"changed")


def test_the_command_runs_beside_it_and_its_results_are_fetched(tmp_path):
    put = "import fsspec; fsspec.filesystem('s3').pipe('s3://mine/r/x/y.txt', b'kept')"
    options = ["--bucket", "mine", "--fetch", "s3://mine/r", str(tmp_path / "copy")]
    run = subprocess.run(
        [sys.executable, servers.__file__, *options, "--", sys.executable, "-c", put],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "copy/x/y.txt").read_text() == "kept"
    assert servers.SECRET_KEY not in run.stdout + run.stderr
    endpoint = run.stdout.split(" at ")[1].split()[0]
    with pytest.raises(urllib.error.URLError, match="refused"):
        urllib.request.urlopen(endpoint, timeout=5)
