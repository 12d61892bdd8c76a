"""Short texts that request much work: what is equal is done once, and errors that repeat are counted."""

from __future__ import annotations

import os
import pickle
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

import hiresnet_graph as hrg
from hiresnet_graph.cli.app import app
from hiresnet_graph.errors import MAX_PROBLEMS, SpecError
from hiresnet_graph.sweep.networks import networks_of
from hiresnet_graph.sweep.study import read_study

HEAD = "name: n\ninput: {channels: 1, height: 8, width: 8}\n"


def error_of(text: str) -> SpecError:
    with pytest.raises(SpecError) as caught:
        hrg.loads(text, "n.yaml").validate()
    return caught.value


def test_a_repeated_error_is_reported_ten_times_and_counted() -> None:
    before = time.process_time()
    error = error_of(f"{HEAD}nodes: {{a: relu, b: relu}}\nflow: [{', '.join(['a -> b'] * 22_000)}]\n")
    assert time.process_time() - before < 10
    assert [problem.path for problem in error.problems] == [f"flow[{k}]" for k in range(1, 11)]
    assert {problem.message for problem in error.problems} == {"the edge a -> b already exists."}
    assert error.omitted == 21_999 - 10
    assert str(error).endswith("\n21,989 further problems.")
    assert pickle.loads(pickle.dumps(error)).omitted == error.omitted


def test_a_chain_that_repeats_an_edge() -> None:
    error = error_of(f"{HEAD}nodes: {{a: relu, b: relu}}\nflow: {' -> '.join(['a', 'b'] * 11_000)}\n")
    assert len(error.problems) == 20 and error.omitted >= 2 * 11_000 - 1 - 2 - 20


def test_different_errors_have_a_limit() -> None:
    nodes = ", ".join(f"a{k}: {{block: relu, x{k}: 1}}" for k in range(1_000))
    error = error_of(f"{HEAD}nodes: {{{nodes}}}\n")
    assert len(error.problems) == MAX_PROBLEMS and error.omitted >= 1_000 - MAX_PROBLEMS
    keys = "\n".join(f"{{[{k}]: 1}}: 1" for k in range(1_000))
    assert len(error_of(keys).problems) <= MAX_PROBLEMS


def test_the_command_line_counts_errors(tmp_path: Path) -> None:
    path = tmp_path / "n.yaml"
    path.write_text(f"{HEAD}nodes: {{a: relu, b: relu}}\nflow: [{', '.join(['a -> b'] * 1_000)}]\n")
    for command in ("validate", "show"):
        done = CliRunner().invoke(app, [command, str(path)])
        assert done.exit_code == 1 and "999 problems, the first 10 are shown." in done.output
        assert len(done.output.splitlines()) == 41


def test_equal_variants_are_compiled_once() -> None:
    names = ", ".join(f"v{k}: {{}}" for k in range(60))
    text = f"{HEAD}nodes: {{a: relu}}\nvariants: {{{names}, w: {{nodes: {{a: sigmoid}}}}}}\n"
    seen: list[tuple[int, int, str]] = []
    assert hrg.loads(text).validate(lambda *step: seen.append(step)) == ()
    assert seen == [(0, 62, "n"), (61, 62, "w")]


def test_equal_networks_of_a_study_are_compiled_once(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text("name: s\nnetwork: resnet20\nvariants: {a: {}, b: {}, c: {nodes.stage1.depth: 2}}\n")
    a, b, c = (network.architecture.plan for network in networks_of(read_study(path)).members)
    assert a is b and a is not c


def test_a_spec_has_a_limited_number_of_variants() -> None:
    names = ", ".join(f"v{k}: {{}}" for k in range(1_001))
    (problem,) = error_of(f"{HEAD}nodes: {{a: relu}}\nvariants: {{{names}}}\n").problems
    assert str(problem).startswith("n.yaml:4:1: variants: a spec has at most 1,000 variants, this one has 1,001.")


def chain_of_files(folder: Path, links: int, last: str) -> Path:
    for k in range(links):
        (folder / f"n{k}.yaml").write_text(f"name: n{k}\nextends: ./n{k + 1}.yaml\n")
    (folder / f"n{links}.yaml").write_text(last)
    return folder / "n0.yaml"


def test_a_long_chain_of_files_is_not_a_circle(tmp_path: Path) -> None:
    hrg.load(chain_of_files(tmp_path, 16, f"{HEAD}nodes: {{a: relu}}\n")).validate()
    with pytest.raises(SpecError, match=r"n16\.yaml:2:10: extends: a chain of files .* at most 16 links.*Merge some"):
        hrg.load(chain_of_files(tmp_path, 17, f"{HEAD}nodes: {{a: relu}}\n"))
    with pytest.raises(SpecError, match=r"n0\.yaml:2:10: extends: '\./n1\.yaml' extends itself"):
        hrg.load(chain_of_files(tmp_path, 3, "name: n3\nextends: ./n0.yaml\n"))


@pytest.mark.skipif(os.name != "posix", reason="pipes as files")
def test_a_pipe_or_a_device_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    for path in (tmp_path / "pipe.yaml", Path("/dev/zero")):
        with pytest.raises(SpecError, match=r":1:1: expected a file, got a pipe or a device"):
            hrg.load(path)


def test_brute_force_has_a_limit(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    space = "search: {space: {width: {low: 1, high: 1000000000}}, sampler: brute-force}"
    path.write_text(f"name: s\nnetwork: hiresnet18\n{space}\n")
    with pytest.raises(SpecError, match=r"study\.yaml:3:9: search: .*'width', 1,000,000,000 here; the limit is 10,000"):
        read_study(path)
