"""The command line: what users see of errors."""

import sys

import pytest

from deepprofile import cli


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
    monkeypatch.setattr(cli, "measure_rates", None)
    arguments = ["deepprofile", "benchmark", "--rates", str(tmp_path / "file" / "rates.json")]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    assert "error: " in (printed := capsys.readouterr().err)
    assert str(tmp_path / "file") in printed
