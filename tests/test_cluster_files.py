"""Cluster files with mistakes: the key is named, and what was expected."""

import pytest

from deepprofile.cluster import ClusterError, connect
from deepprofile.cluster.connecting import read_spec

SLURM = "kind: slurm\nmemory: 8GB\njobs: 1\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("workers: 1\nworkers: 2\n", ["key 'workers' stands twice"]),
        ("workers: true\n", ["workers: found True, expected a whole number"]),
        ("kind: [local]\n", ["kind: found ['local']", "expected one of local"]),
        ("kind: local\nresources: [1\n", ["is not valid YAML"]),
        (SLURM + "cors: 4\n", ["cors: unknown key, did you mean cores?"]),
        (SLURM + "cores: 4\nzzz: 4\n", ["zzz: unknown key. Allowed keys of kind slurm"]),
        (
            "kind: slurm\nmemory: 8GB\ncores: 4\nadaptive: {maximum: 3, minimm: 1}\n",
            ["adaptive.minimm: unknown key, did you mean minimum?"],
        ),
        (
            "kind: address\naddress: tls://h:1\ntls: {ca_file: a, cert: b, key: c, zzz: d}\n",
            ["tls.zzz: unknown key, expected one of ca_file, cert, key"],
        ),
        (
            SLURM + "cores: 4\nprologue: module load x\n",
            ["prologue: found 'module load x', expected a list, such as [\"module load x\"]"],
        ),
        ("memory_limit: 6\n", ["memory_limit: found 6, expected a text, such as 6GiB"]),
        (SLURM + "cores: 4\nqueue: 6\n", ["queue: found 6, expected a text, in quotes"]),
        (SLURM + "cores: 4\nadaptive: 3\n", ["adaptive: found 3, expected keys with values"]),
        ("kind: address\naddress: http://x:1\n", ["expected tcp://HOST:PORT or tls://HOST:PORT"]),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_what_was_expected(tmp_path, text, words):
    path = tmp_path / "cluster.yaml"
    path.write_text(text)
    with pytest.raises(ClusterError) as error:
        read_spec(path)
    for word in [f"cluster {path}: ", *words]:
        assert word in str(error.value)


def test_a_file_that_is_no_text_is_named(tmp_path):
    path = tmp_path / "cluster.yaml"
    path.write_bytes(b"kind: \xff\n")
    with pytest.raises(ClusterError, match=rf"cluster {path}: is not UTF-8 text"):
        read_spec(path)


def test_a_certificate_that_is_missing_is_named_with_the_cluster_file(tmp_path):
    path = tmp_path / "cluster.yaml"
    names = "{ca_file: ca.pem, cert: own.pem, key: key.pem}"
    path.write_text(f"kind: address\naddress: tls://127.0.0.1:1\ntls: {names}\n")
    with pytest.raises(ClusterError) as error:
        connect(path)
    assert f"cluster {path}: tls.ca_file: there is no file {tmp_path}/ca.pem" in str(error.value)
