import json

from hiresnet_graph import __version__


def test_doctor_says_what_is_there(hrg):
    result = hrg("doctor", "--json")
    data = json.loads(result.stdout)
    assert data["checks"]["hrg"]["data"]["version"] == __version__
    assert set(data["checks"]) == {"hrg", "python", "torch", "devices", "diagrams", "needed", "optional", "plugins"}
    assert data["checks"]["torch"]["data"]["threads"] >= 1
    assert data["ok"] == all(check["ok"] for check in data["checks"].values()) == (result.exit_code == 0)
    lines = hrg("doctor").stdout.splitlines()
    assert [line.split()[1] for line in lines] == list(data["checks"])


def test_doctor_tells_a_check_that_fails_and_goes_on(hrg, monkeypatch):
    def fail():
        raise OSError("no engine")

    monkeypatch.setattr("hiresnet_graph.cli.machine._diagrams", fail)
    result = hrg("doctor")
    assert result.exit_code == 1
    assert "bad  diagrams  OSError: no engine" in result.stdout and "ok   plugins" in result.stdout
    assert "diagrams" in result.stderr


def test_help_of_every_command_has_a_line_for_each_option(hrg):
    text = hrg("--help").stdout
    names = "list validate show diff enumerate init schema compile render adjust train ablate report doctor"
    for command in names.split():
        assert f"\n  {command} " in text
        result = hrg(command, "--help")
        assert result.exit_code == 0 and result.stdout.startswith(f"Usage: hrg {command} [OPTIONS]")
        assert "<" not in result.stdout.split("Options:")[0]
