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
