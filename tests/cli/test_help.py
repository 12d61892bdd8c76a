"""`--help` of all commands."""


def test_every_command_has_help(hrg):
    text = hrg("--help").stdout
    names = "list validate show diff enumerate init schema compile render adjust train ablate report doctor"
    for command in names.split():
        assert f"\n  {command} " in text
        result = hrg(command, "--help")
        assert result.exit_code == 0 and result.stdout.startswith(f"Usage: hrg {command} [OPTIONS]")
        assert "<" not in result.stdout.split("Options:")[0]
