"""What operators see of a command that runs in this process, and of a scheduler."""

import json
import urllib.request

from distributed import Client
from prometheus_client.parser import text_string_to_metric_families

from deepprofile import cli
from deepprofile.operators.metrics import PREFIX


class Command:
    """Runs the command line with JSON lines; what it said and printed.

    Attributes:
        code: exit code.
        events: all lines of standard error.
        out: standard output.
    """

    def __init__(self, monkeypatch, capfd):
        self._monkeypatch, self._capfd = monkeypatch, capfd
        self.code, self.events, self.out = None, [], ""

    def __call__(self, *arguments, form="json"):
        capfd = self._capfd
        capfd.readouterr()
        argv = ["deepprofile", *map(str, arguments), "--log-format", form]
        self._monkeypatch.setattr("sys.argv", argv)
        try:
            cli.main()
        except SystemExit as end:
            self.code = end.code
        self.out, self.err = capfd.readouterr()
        self.events = [json.loads(line) for line in self.err.splitlines()] if form == "json" else []
        return self

    def names(self):
        return [event["event"] for event in self.events]

    def of(self, name):
        return [event for event in self.events if event["event"] == name]


def samples(text):
    """Our metrics by name (without prefix) and labels in their order; no sample comes twice."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name.startswith(PREFIX):
                labels = [value for _, value in sorted(sample.labels.items())]
                key = sample.name.removeprefix(PREFIX), *labels
                assert key not in found
                found[key] = sample.value
    return found


def scraped(client: Client):
    """Our metrics as the scheduler of a client serves them."""
    link = client.dashboard_link.replace("/status", "/metrics")
    with urllib.request.urlopen(link, timeout=60) as reply:
        return samples(reply.read().decode())
