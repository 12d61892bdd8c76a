"""`hrg doctor`."""

import json

from hiresnet_graph import __version__


def test_doctor_reports_the_installation(hrg):
    result = hrg("doctor", "--json")
    data = json.loads(result.stdout)
    assert data["checks"]["hrg"]["data"]["version"] == __version__
    assert set(data["checks"]) == {"hrg", "python", "torch", "devices", "needed", "optional", "plugins"}
    assert data["checks"]["torch"]["data"]["threads"] >= 1
    assert data["ok"] == all(check["ok"] for check in data["checks"].values()) == (result.exit_code == 0)
    lines = hrg("doctor").stdout.splitlines()
    assert [line.split()[1] for line in lines] == list(data["checks"])


def test_a_check_that_raises_is_reported_as_failed(hrg, monkeypatch):
    def fail():
        raise OSError("no engine")

    monkeypatch.setattr("hiresnet_graph.cli.commands.doctor._plugins", fail)
    result = hrg("doctor")
    assert result.exit_code == 1
    assert "failed  plugins   OSError: no engine" in result.stdout and "ok      optional" in result.stdout
    assert "plugins" in result.stderr
