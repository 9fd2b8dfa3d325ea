"""The command line: what users see of errors."""

import sys
from pathlib import Path

import pytest
from store_support import N_DAYS, jobs, template, write_block

from deepprofile import cli
from deepprofile.store import publish


def test_messages_are_printed_as_they_are(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["deepprofile", "plan", "we[/i]rd[export].yaml"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    assert "error: we[/i]rd[export].yaml: can't be read" in capsys.readouterr().err


def test_places_that_cannot_be_written_are_said_before_anything_is_measured(
    monkeypatch, capsys, tmp_path
):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("deepprofile.benchmark.measure_rates", None)
    arguments = ["deepprofile", "benchmark", "--rates", str(tmp_path / "file" / "rates.json")]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    assert "error: " in (printed := capsys.readouterr().err)
    assert str(tmp_path / "file") in printed


def test_commands_that_look_after_a_cube(client, monkeypatch, capsys, tmp_path):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["deepprofile", *arguments])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        printed = capsys.readouterr()
        return stopped.value.code, printed.out + printed.err

    url, here = str(tmp_path / "era5"), ["--cluster", client.scheduler.address]
    for offset in (0, 3):
        publish(
            url,
            template(),
            N_DAYS,
            write_block,
            jobs(offset=offset),
            client=client,
            message="ingest",
            metadata={"stage": "ingest"},
        )
    code, text = run("verify", url, *here)
    assert (code, "Problems: none" in text) == (0, True)
    code, text = run("gc", url, "--keep-days", "0", "--dry-run")
    assert (code, "3 snapshots would be expired" in text) == (0, True)
    code, text = run("gc", url, "--keep-days", "0")
    assert (code, "3 snapshots expired" in text) == (0, True)
    code, text = run("publish", url, str(tmp_path / "plain"), *here)
    assert (code, "shards" in text) == (0, True)
    code, text = run("publish", url, str(tmp_path / "plain"), *here)
    assert (code, "--overwrite" in text) == (2, True)
    max(Path(url, "chunks").iterdir(), key=lambda file: file.stat().st_size).unlink()
    code, text = run("verify", url, "--quick", "--repair", *here)
    assert (code, "gone from the store" in text, "written again by the stage ingest" in text) == (
        1,
        True,
        True,
    )
    code, text = run("inspect", url)
    assert (code, "3 of 4 pieces done (75.0 %)" in text) == (0, True)
    assert run("verify", str(tmp_path / "nowhere"), *here)[0] == 2
