"""What a stage repeats, and where it stops."""

from dataclasses import dataclass

import pytest

from deepprofile.stages import StageError
from deepprofile.stages.publication import fingerprint_of, outstanding, require_all
from deepprofile.store import JobFailure, SinglePiece


@dataclass(frozen=True)
class Work(SinglePiece):
    key: str
    fingerprint: str


def test_a_job_is_outstanding_unless_its_own_fingerprint_is_there():
    jobs = [Work("a", "1"), Work("b", "1"), Work("c", "1")]
    assert outstanding(jobs, {"a": "1", "b": "0"}) == jobs[1:]


@dataclass(frozen=True)
class Several:
    entries: dict[str, str]


def test_a_job_of_several_pieces_is_outstanding_if_one_of_them_is():
    job = Several({"a": "1", "b": "2"})
    assert outstanding([job], {"a": "1", "b": "2", "c": "3"}) == []
    for done in ({"a": "1"}, {"a": "1", "b": "1"}, {"a": "2", "b": "1"}):
        assert outstanding([job], done) == [job]


def test_fingerprints_differ_with_content_and_order():
    assert fingerprint_of(["a", "b"]) == fingerprint_of(["a", "b"])
    assert len({fingerprint_of(parts) for parts in (["a", "b"], ["b", "a"], ["a"], ["ab"])}) == 4


def test_failed_jobs_stop_the_chain_and_are_named():
    failed = [JobFailure(Work(f"tile {i}", ""), "RuntimeError: broken", "") for i in range(12)]
    with pytest.raises(
        StageError, match=r"(?s)ingest: 12 jobs failed.*tile 9: .*and 2 more.*again"
    ):
        require_all("ingest", failed)
    require_all("ingest", [])
