"""`hrg` as a program: exit codes, streams, pipes, terminals, interruption."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

PROGRAM = [sys.executable, "-m", "hiresnet_graph.cli"]
NO_TORCH = """
import sys
from hiresnet_graph.cli.app import app
try:
    app(sys.argv[1:])
except SystemExit as end:
    assert end.code == 0, end.code
heavy = "torch torchvision sklearn scipy numpy vl_convert altair optuna onnx".split()
print("loaded:", [name for name in heavy if name in sys.modules], file=sys.stderr)
"""


def environment(**changes: str | None) -> dict[str, str]:
    """This process's environment with changes; None removes a variable."""
    env = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "NO_COLOR", "PYTHONIOENCODING")}
    for key, value in changes.items():
        if value is None:
            env.pop(key, None)
        else:
            env[key] = value
    return env


@pytest.fixture
def program() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the command line as a program, as a shell would."""

    def call(*args: str | Path, **env: str | None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*PROGRAM, *map(str, args)],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            env=environment(**env),
            timeout=120,
            check=False,
        )

    return call


@pytest.mark.parametrize(
    "args",
    [
        ["validate", "hiresnet18"],
        ["validate", "digits"],
        ["show", "hiresnet18", "--variant", "full"],
        ["show", "unet", "--ops", "--json"],
        ["diff", "hiresnet18@in", "hiresnet18@out"],
        ["enumerate", "hiresnet18", "--subsets", "leave-one-out"],
        ["enumerate", "frnn3", "--subsets", "leave-one-out", "--group", "transitions"],
        ["validate", "frnn3-transitions"],
        ["analyze", "readout", "--help"],
        ["list"],
        ["schema"],
        ["init", "-o", "-"],
        ["adjust", "hiresnet18", "block=plain", "--edges", "none", "-p", "265100"],
    ],
    ids=" ".join,
)
def test_reading_imports_no_torch_nor_anything_heavy(args):
    done = subprocess.run([sys.executable, "-c", NO_TORCH, *args], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == "loaded: []", done.stderr


def test_the_installed_program_is_this_one(program):
    assert program("--version").stdout.startswith("hrg ")


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (["validate", "unet"], 0),
        (["validate", "nosuch"], 1),
        (["show", "unet", "foo=1"], 1),
        (["show", "unet", "foo"], 2),
        (["nosuch"], 2),
        (["report", "nosuch"], 1),
        (["render", "unet", "-o", "x.nosuch"], 2),
    ],
    ids=str,
)
def test_exit_codes(program, args, code):
    done = program(*args)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_tool_is_exit_code_3(program, tmp_path):
    # A file that hides the package from this one program.
    for name in ("onnx", "onnxscript"):
        (tmp_path / f"{name}.py").write_text(f"raise ModuleNotFoundError('hidden', name='{name}')")
    done = program("compile", "unet", "-o", tmp_path / "x.onnx", PYTHONPATH=str(tmp_path))
    assert done.returncode == 3, done.stderr
    assert done.stderr.startswith("hrg compile: ") and "Traceback" not in done.stderr


def test_json_is_alone_on_stdout_and_ascii_where_the_encoding_requires_it(program):
    for encoding in ("utf-8", "ascii"):
        done = program("list", "--json", PYTHONIOENCODING=encoding)
        listing = json.loads(done.stdout)
        assert done.stderr == "" and listing["blocks"]
        assert done.stdout.isascii() or encoding == "utf-8"


@pytest.mark.parametrize("columns", [None, "20", "40", "80", "160"])
def test_tables_fit_the_width(program, columns):
    done = program("show", "hiresnet18@full", COLUMNS=columns)
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    tables = [line for line in lines if line.startswith(("─", "stem", "stage", "nodes", "skips", "all"))]
    assert len(tables) > 15
    if columns is None:
        assert all(line == line.rstrip() for line in lines)
        assert "avg, conv1x1, batch" in done.stdout and "memory" in done.stdout and done.stderr == ""
    else:
        assert all(len(line) <= int(columns) for line in tables)
        assert ("memory" in done.stderr) == (int(columns) < 160)


def test_output_has_colours_on_a_terminal_only(program):
    assert "\x1b" not in program("show", "unet", "foo=1").stderr
    assert "\x1b" not in program("show", "unet").stdout


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs pseudo-terminals")
@pytest.mark.parametrize(("changes", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
def test_colours_on_a_terminal(changes, coloured):
    env = environment(**{"TERM": "xterm-256color", **changes})
    main, side = os.openpty()
    done = subprocess.Popen([*PROGRAM, "show", "unet"], stdout=side, stderr=side, env=env)
    os.close(side)
    text = b""
    while True:
        try:
            part = os.read(main, 65536)
        except OSError:
            break
        if not part:
            break
        text += part
    assert done.wait(60) == 0
    os.close(main)
    assert b"482,754" in text
    assert (b"\x1b[" in text) == coloured


def test_a_terminal_without_unicode_is_enough(program):
    done = program("show", "hiresnet18", PYTHONIOENCODING="ascii", COLUMNS="80")
    assert done.returncode == 0 and done.stdout.isascii()
    assert "-----" in done.stdout and "273,466" in done.stdout
    done = program("list", "projections", PYTHONIOENCODING="ascii")
    assert done.returncode == 0 and done.stdout.isascii()
    assert program("show", "--help", PYTHONIOENCODING="ascii").returncode == 0


@pytest.mark.skipif(os.name != "posix", reason="needs a POSIX shell")
def test_a_reader_that_closes_the_pipe_early_causes_no_error():
    command = f"{sys.executable} -m hiresnet_graph.cli show resnet110 --ops | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=environment(), check=False)
    assert done.stdout.splitlines()[1] == "0" and done.stderr == ""


@pytest.mark.skipif(os.name != "posix", reason="needs a POSIX shell")
def test_a_reader_that_closes_the_pipe_early_stops_no_training_and_hides_no_error(tmp_path):
    """`read` is a reader that ends after the first line, long before the second one is written."""

    def exit_code(args, streams):
        command = f"({shlex.join([*PROGRAM, *args])}; echo $? > code) {streams} | (read -r line; echo $line)"
        subprocess.run(["bash", "-c", command], cwd=tmp_path, env=environment(), check=True, capture_output=True)
        return int((tmp_path / "code").read_text())

    study = ["ablate", *SMALL, "--variants", "none,full", "--seeds", "1", "--epochs", "1", "--jobs", "1", "-o", "study"]
    assert exit_code(study, "2>&1") == 0
    assert all((tmp_path / "study" / "runs" / f"{name}-seed0" / "result.json").exists() for name in ("none", "full"))
    assert exit_code(["train", *SMALL, "--epochs", "2", "-o", "run"], "2>&1") == 0
    assert (tmp_path / "run" / "result.json").exists()
    diverging = ["train", *SMALL, "--epochs", "2", "--lr", "1e30", "-o", "diverged"]
    assert exit_code(diverging, "2>&1") == 1
    assert json.loads((tmp_path / "diverged" / "result.json").read_text())["outcome"] == "diverged"
    assert exit_code(["validate", "hiresnet18", "nosuch", "unet"], "2>&1") == 1


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_and_closed_streams_cause_no_traceback():
    for redirection, code in (("> /dev/full", 1), (">&-", 0), ("2>&-", 0)):
        command = f"{sys.executable} -m hiresnet_graph.cli show unet {redirection}"
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=environment(), check=False)
        assert done.returncode == code and "Traceback" not in done.stderr and "Exception" not in done.stderr
        assert ("hrg show: no space left on device." in done.stderr) == (code == 1)


def test_control_characters_of_a_file_do_not_reach_the_terminal(program, tmp_path):
    path = tmp_path / "esc.yaml"
    path.write_text('name: "\\e[31mred"\ndescription: "\\e]0;title\\a"\ninput: {channels: 2}\nnodes: {a: "\\e[2J"}\n')
    done = program("show", path)
    assert done.returncode == 1 and "\x1b" not in done.stdout + done.stderr
    path.write_text('name: "\\e[31mred"\ndescription: "\\e]0;title\\a"\ninput: {channels: 2}\nnodes: {a: relu}\n')
    for args in (["show"], ["validate"], ["diff", path, path]):
        done = program(*args, path)
        assert "\x1b" not in done.stdout + done.stderr and "\a" not in done.stdout


def _interrupted(args, ready, tmp_path):
    """The exit code and output of a program that gets Ctrl-C as soon as `ready` is on its stderr."""
    log = tmp_path / "stderr.txt"
    with log.open("wb") as stderr:
        running = subprocess.Popen(
            [*PROGRAM, *map(str, args)], stdout=subprocess.PIPE, stderr=stderr, env=environment()
        )
        limit = time.monotonic() + 90
        while ready not in log.read_text() and running.poll() is None and time.monotonic() < limit:
            time.sleep(0.05)
        running.send_signal(signal.SIGINT)
        stdout, _ = running.communicate(timeout=60)
    return running.returncode, stdout.decode(), log.read_text()


SMALL = ["hiresnet18", "width=2", "input.channels=1", "input.height=8", "input.width=8"]


def test_ctrl_c_in_training_is_one_line_and_exit_code_130(tmp_path):
    out = tmp_path / "run"
    code, stdout, stderr = _interrupted(["train", *SMALL, "--epochs", 500, "-o", out], "epoch 2/500", tmp_path)
    assert code == 130 and stdout == ""
    last = stderr.splitlines()[-1]
    assert last.startswith("Interrupted: ") and f"Resume with: hrg train --resume {out}" in last
    assert "Traceback" not in stderr


def test_ctrl_c_in_an_ablation_prints_what_is_saved_and_how_to_resume(tmp_path):
    out = tmp_path / "study"
    args = ["ablate", *SMALL, "--variants", "none,full", "--seeds", 50, "--epochs", 1, "--jobs", 1, "-o", out]
    code, stdout, stderr = _interrupted(args, "run 1/100", tmp_path)
    assert code == 130 and stdout == "" and "Traceback" not in stderr
    last = stderr.splitlines()[-1]
    assert last.startswith("Interrupted: ") and " of 100 runs are finished and kept in " in last
    assert f"Resume with: hrg {' '.join(map(str, args))}" in last
    assert (out / "runs" / "none-seed0" / "result.json").exists()


INTERRUPTED = """
import os, signal, sys
module = sys.argv[1]

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == module:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Finder())
from hiresnet_graph.cli import main
sys.argv = ["hrg", *sys.argv[2:]]
main()
"""


@pytest.mark.parametrize(
    "module", ["pydantic", "typer", "hiresnet_graph.cli.app", "hiresnet_graph.blocks", "numpy", "torch"]
)
def test_ctrl_c_during_any_import_is_one_line(module, tmp_path):
    args = ["train", *SMALL, "--epochs", "1", "-o", tmp_path / "run"]
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, module, *map(str, args)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (130, "") and done.stderr.splitlines()[-1] == "Interrupted.", done.stderr


def test_the_entry_point_loads_nothing_that_takes_time():
    code = (
        "import hiresnet_graph.cli, sys; print([n for n in ('pydantic', 'typer', 'yaml', 'rich') if n in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize(
    "number",
    [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)],
    ids=["Ctrl-C", "SIGTERM"],
)
def test_a_stopped_ablation_names_the_runs_with_checkpoints(tmp_path, number):
    out = tmp_path / "study"
    args = ["ablate", *SMALL, "--variants", "none,full", "--seeds", 1, "--epochs", 3000, "--jobs", 2, "-o", out]
    log = tmp_path / "stderr.txt"
    with log.open("wb") as stderr:
        running = subprocess.Popen([*PROGRAM, *map(str, args)], stderr=stderr, env=environment())
        limit = time.monotonic() + 120
        while (
            sum(path.stat().st_size > 0 for path in out.glob("runs/*/metrics.jsonl")) < 2
            and running.poll() is None
            and time.monotonic() < limit
        ):
            time.sleep(0.1)
        time.sleep(1)
        running.send_signal(number)
        assert running.wait(60) == 130
    last = log.read_text().splitlines()[-1]
    pattern = (
        rf"Interrupted: 0 of 2 runs are finished and kept in {re.escape(str(out))}\. Checkpoints are saved of "
        r"none-seed0 \(epoch \d+\), full-seed0 \(epoch \d+\)\. The same command trains the other 2\. "
        r"Resume with: hrg ablate .*"
    )
    assert re.fullmatch(pattern, last), log.read_text()
    done = subprocess.run([*PROGRAM, "status", str(out)], capture_output=True, text=True, env=environment(), check=True)
    assert done.stdout.startswith("hiresnet18: 2 runs; 2 paused.\n")
    again = [*PROGRAM, *map(str, args)]
    with log.open("wb") as stderr:
        running = subprocess.Popen(again, stderr=stderr, env=environment())
        while b"resumed" not in log.read_bytes() and running.poll() is None and time.monotonic() < limit:
            time.sleep(0.1)
        running.send_signal(number)
        running.wait(60)
    assert "hiresnet18: 2 networks on digits, 2 runs, of which 2 are resumed.\n" in log.read_text()
