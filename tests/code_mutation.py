"""Check that the tests notice wrong code: change one expression at a time, and run the tests that execute it.

    python tests/code_mutation.py trace MAP.json [TEST ...]
    python tests/code_mutation.py run OUT.jsonl --map MAP.json [--sample N] [--seed N] [--seconds N] [FOLDER ...]
    python tests/code_mutation.py show OUT.jsonl

`trace` runs tests and records which of them execute each line of the package (requires the package coverage). `run`
copies the checkout to a temporary folder, draws a random sample of the possible changes, and applies them one by one,
in a forked process. After each change it runs the tests that execute the changed line, shortest first and up to
`--seconds` of them, until one fails. It appends a line to OUT for each change and continues an interrupted sample.
`show` prints the fraction of changes that were noticed, and those that were not.

Only the bodies of functions are changed; messages, annotations and assertions are left out. What is not noticed
lacks a test, needs more `--seconds`, or changes nothing that a user can see. A change takes about eight seconds.
"""

from __future__ import annotations

import argparse
import ast
import gc
import importlib
import json
import os
import random
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import _lru_cache_wrapper
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import pytest

PACKAGE = "hiresnet_graph"
FOLDERS = ("passes", "ops", "cost.py", "lower", "train", "sweep/ledger.py", "report/statistics.py")
COMPARED: dict[type[ast.cmpop], str] = {
    ast.Lt: "<=",
    ast.LtE: "<",
    ast.Gt: ">=",
    ast.GtE: ">",
    ast.Eq: "!=",
    ast.NotEq: "==",
    ast.Is: "is not",
    ast.IsNot: "is",
    ast.In: "not in",
    ast.NotIn: "in",
}
COMPUTED: dict[type[ast.operator], str] = {
    ast.Add: "-",
    ast.Sub: "+",
    ast.Mult: "+",
    ast.Div: "*",
    ast.FloorDiv: "*",
    ast.Mod: "*",
    ast.Pow: "*",
    ast.BitAnd: "|",
    ast.BitOr: "&",
    ast.LShift: ">>",
    ast.RShift: "<<",
}
NOT_APPLIED = "not applied"
TEXT = (ast.JoinedStr, ast.Constant, ast.List)


@dataclass(frozen=True)
class Change:
    """One change: `old` at a byte offset of a file becomes `new`."""

    file: str
    line: int
    offset: int
    kind: str
    old: str
    new: str

    def apply(self, source: bytes) -> bytes:
        """The source with the change."""
        old = self.old.encode()
        assert source[self.offset : self.offset + len(old)] == old
        return source[: self.offset] + self.new.encode() + source[self.offset + len(old) :]


class _Changes(ast.NodeVisitor):
    """All changes of a file."""

    def __init__(self, file: str, source: bytes) -> None:
        self.file, self.source, self.found, self.depth = file, source, list[Change](), 0
        self.starts = [0]
        for line in source.splitlines(keepends=True):
            self.starts.append(self.starts[-1] + len(line))
        self.visit(ast.parse(source))

    def _span(self, node: Any) -> tuple[int, int]:
        return self.starts[node.lineno - 1] + node.col_offset, self.starts[node.end_lineno - 1] + node.end_col_offset

    def _text(self, node: ast.AST) -> str:
        return self.source[slice(*self._span(node))].decode()

    def _add(self, node: Any, kind: str, new: str) -> None:
        begin, end = self._span(node)
        self._add_text(node.lineno, begin, self.source[begin:end].decode(), kind, new)

    def _add_text(self, line: int, begin: int, old: str, kind: str, new: str) -> None:
        """Add a change inside a function; the lines after it keep their numbers."""
        if self.depth:
            lines = "\n" * (old.count("\n") - new.count("\n"))
            self.found.append(Change(self.file, line, begin, kind, old, new + lines))

    def generic_visit(self, node: ast.AST) -> None:
        """Leave out messages, annotations, decorators and assertions."""
        if isinstance(node, (ast.JoinedStr, ast.Assert)):
            return
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        for name, value in ast.iter_fields(node):
            if name not in ("annotation", "returns", "decorator_list", "type_comment", "msg"):
                for child in value if isinstance(value, list) else [value]:
                    if isinstance(child, ast.AST):
                        self.visit(child)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        """Only the body: defaults belong to what is around the function."""
        self.depth += 1
        for statement in node.body:
            self.visit(statement)
        self.depth -= 1

    def visit_Compare(self, node: ast.Compare) -> None:
        if len(node.ops) == 1:
            new = f"({self._text(node.left)}) {COMPARED[type(node.ops[0])]} ({self._text(node.comparators[0])})"
            self._add(node, "comparison", f"({new})")
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        names = ast.unparse(node)
        is_type = isinstance(node.op, ast.BitOr) and ("None" in names or "Literal" in names or "[" in names)
        is_path = isinstance(node.op, ast.Div) and (isinstance(node.right, TEXT) or self._text(node.right).isupper())
        if type(node.op) in COMPUTED and not is_type and not is_path and not isinstance(node.left, TEXT):
            new = f"({self._text(node.left)}) {COMPUTED[type(node.op)]} ({self._text(node.right)})"
            self._add(node, "arithmetic", f"({new})")
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if type(node.op) in COMPUTED:
            new = f"{self._text(node.target)} {COMPUTED[type(node.op)]}= {self._text(node.value)}"
            self._add(node, "arithmetic", new)
        self._add(node, "dropped statement", "pass")
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        word = " or " if isinstance(node.op, ast.And) else " and "
        self._add(node, "boolean", f"({word.join(f'({self._text(value)})' for value in node.values)})")
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Not):
            self._add(node, "boolean", f"bool({self._text(node.operand)})")
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, bool):
            self._add(node, "constant", str(not node.value))
        elif isinstance(node.value, int):
            moved = random.Random(node.lineno * 1000 + node.col_offset).choice((-1, 1))
            self._add(node, "constant", f"({node.value + moved})")
        elif isinstance(node.value, float):
            self._add(node, "constant", repr(2 * node.value or 1.0))

    def visit_keyword(self, node: ast.keyword) -> None:
        if node.arg not in ("strict", "slots", "frozen", "stacklevel", "indent"):
            self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        first = node.args[:2]
        if len(first) == 2 and not any(isinstance(arg, ast.Starred) for arg in first):
            alike = type(first[0]) is type(first[1]) and self._text(first[0]) != self._text(first[1])
            if alike and ast.unparse(node.func) not in ("isinstance", "getattr", "cast"):
                begin, end = self._span(first[0])[0], self._span(first[1])[1]
                old = self.source[begin:end].decode()
                new = f"{self._text(first[1])}, {self._text(first[0])}"
                self._add_text(first[0].lineno, begin, old, "swapped arguments", new)
        self.generic_visit(node)

    def _negate(self, node: Any) -> None:
        if not isinstance(node.test, ast.UnaryOp):
            self._add(node.test, "negated condition", f"(not ({self._text(node.test)}))")
        self.generic_visit(node)

    visit_If = visit_IfExp = visit_While = _negate

    def visit_comprehension(self, node: ast.comprehension) -> None:
        for test in node.ifs:
            self._add(test, "negated condition", f"(not ({self._text(test)}))")
        self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Constant):
            return
        if isinstance(node.value, ast.Call):
            self._add(node, "dropped statement", "pass")
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        if all(isinstance(target, (ast.Attribute, ast.Subscript)) for target in node.targets):
            self._add(node, "dropped statement", "pass")
        self.generic_visit(node)

    def _drop(self, node: ast.stmt) -> None:
        self._add(node, "dropped statement", "pass")

    visit_Raise = visit_Continue = visit_Break = visit_Delete = _drop


def changes_of(root: Path, folders: tuple[str, ...]) -> list[Change]:
    """All changes of the files in folders of the package that are valid Python."""
    found = []
    for folder in folders:
        path = root / PACKAGE / folder
        for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
            source = file.read_bytes()
            for change in _Changes(file.relative_to(root).as_posix(), source).found:
                ast.parse(change.apply(source))
                found.append(change)
    return found


class _Tracer:
    """A pytest plugin that records which test executes which line, and the CPU time of each test."""

    def __init__(self) -> None:
        coverage = importlib.import_module("coverage")
        self.coverage = coverage.Coverage(source=[str(Path.cwd() / PACKAGE)], data_file=None, config_file=False)
        self.times: dict[str, float] = {}
        self.coverage.start()

    @pytest.hookimpl(hookwrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        begun = sum(os.times()[:4])
        self.coverage.switch_context(item.nodeid)
        yield
        self.coverage.switch_context("")
        self.times[item.nodeid] = sum(os.times()[:4]) - begun

    def result(self) -> dict[str, Any]:
        """The times of the tests, and for each file and line the numbers of the tests."""
        self.coverage.stop()
        data, numbers = self.coverage.get_data(), {test: i for i, test in enumerate(self.times)}
        lines = {}
        for path in sorted(data.measured_files()):
            found = data.contexts_by_lineno(path).items()
            lines[Path(path).relative_to(Path.cwd()).as_posix()] = {
                line: sorted(numbers[test] for test in tests if test in numbers) for line, tests in found
            }
        return {"times": self.times, "lines": lines}


def trace(out: Path, tests: list[str]) -> None:
    """Run tests and write which lines they execute."""
    tracer = _Tracer()
    pytest.main(["-q", "-p", "no:cacheprovider", *tests], plugins=[tracer])
    out.write_text(json.dumps(tracer.result()))


def chosen_tests(change: Change, traced: dict[str, Any], seconds: float) -> tuple[list[str], float]:
    """The tests that execute the line of a change, shortest first and up to a CPU time, and their time."""
    names, times = list(traced["times"]), traced["times"]
    chosen, total = list[str](), 0.0
    found = traced["lines"].get(change.file, {}).get(str(change.line), ())
    for test in sorted((names[i] for i in found), key=lambda name: times[name]):
        total += times[test] + 0.01
        if total > seconds and chosen:
            break
        chosen.append(test)
    return chosen, total


def functions_of(code: CodeType) -> Iterator[CodeType]:
    """All functions in compiled code."""
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from functions_of(constant)


def replace_functions(file: str, source: bytes) -> None:
    """Give all functions of a file the code of another version of it that has the same lines.

    Caches of this package are cleared. Those of others must not be: torch keeps registrations in some.
    """
    new = {(code.co_qualname, code.co_firstlineno): code for code in functions_of(compile(source, file, "exec"))}
    for function in gc.get_objects():
        if type(function) is FunctionType and function.__code__.co_filename == file:
            function.__code__ = new[function.__code__.co_qualname, function.__code__.co_firstlineno]
        elif type(function) is _lru_cache_wrapper:
            cached = getattr(function, "__wrapped__", None)
            if type(cached) is FunctionType and (
                cached.__code__.co_filename == file or cached.__module__.startswith("hiresnet_graph")
            ):
                function.cache_clear()


class _Runner:
    """A pytest plugin that, instead of the tests, runs those of each change in a forked process."""

    def __init__(self, options: argparse.Namespace, traced: dict[str, Any], root: Path) -> None:
        self.options, self.traced, self.root = options, traced, root
        self.items: dict[str, pytest.Item] = {}
        self.failed = ""

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        self.items = {item.nodeid: item for item in session.items}
        for change in self._sample():
            tests, total = chosen_tests(change, self.traced, self.options.seconds)
            begun = time.monotonic()
            result = self._check(change, [self.items[test] for test in tests if test in self.items], total)
            record = {**asdict(change), "result": result, "tests": len(tests)}
            with self.options.out.open("a") as out:
                out.write(json.dumps(record | {"time_s": round(time.monotonic() - begun, 1)}) + "\n")
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and not self.failed:
            self.failed = report.nodeid

    def _sample(self) -> Iterator[Change]:
        """The changes that are left of the sample."""
        sample = changes_of(self.root, tuple(self.options.folders) or FOLDERS)
        random.Random(self.options.seed).shuffle(sample)
        done = {
            json.dumps({key: record[key] for key in Change.__annotations__}) for record in records(self.options.out)
        }
        return (change for change in sample[: self.options.sample] if json.dumps(asdict(change)) not in done)

    def _check(self, change: Change, items: list[pytest.Item], cpu_s: float) -> str:
        """Apply a change to the copy of the checkout, run its tests, and undo it; the test that failed, or why not."""
        if not items:
            return "no tests"
        file = self.root / change.file
        source = file.read_bytes()
        file.write_bytes(change.apply(source))  # for processes that tests start
        try:
            return _in_child(lambda: self._run(change, source, items), 10 + int(3 * cpu_s), 300 + int(30 * cpu_s))
        finally:
            file.write_bytes(source)

    def _run(self, change: Change, source: bytes, items: list[pytest.Item]) -> str:
        try:
            replace_functions(str(self.root / change.file), change.apply(source))
        except ValueError:  # the change takes the last use of a variable from a closure
            return NOT_APPLIED
        for item, after in zip(items, [*items[1:], None], strict=True):
            item.ihook.pytest_runtest_protocol(item=item, nextitem=after)
            if self.failed:
                break
        return self.failed or "passed"


def _in_child(work: Callable[[], str], cpu_s: int, wall_s: int) -> str:
    """The result of a function in a forked process; `timeout` or `crashed` if it has none."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 5))
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (1, 2):
            os.dup2(null, stream)
        try:
            os.write(writer, work().encode())
        except BaseException as error:
            os.write(writer, f"error: {error!r}".encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        in_time = select.select([pipe], [], [], wall_s)[0]
        if not in_time:
            os.killpg(pid, signal.SIGKILL)
        result = pipe.read() if in_time else "timeout"
    status = os.waitpid(pid, 0)[1]
    return result or ("timeout" if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGXCPU else "crashed")


def run(options: argparse.Namespace) -> None:
    """Check a random sample of the changes."""
    os.environ |= {"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    sys.dont_write_bytecode = True
    traced = json.loads(options.map.read_text())
    options.out = options.out.resolve()
    checkout = Path(__file__).resolve().parents[1]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve() / "checkout"
        shutil.copytree(checkout, root, ignore=shutil.ignore_patterns(".*", "__pycache__", "results"))
        os.chdir(root)
        os.environ["PYTHONPATH"] = sys.path[0] = str(root)
        files = sorted({test.partition("::")[0] for test in traced["times"]})
        plugins = [_Runner(options, traced, root)]
        pytest.main(
            ["-q", "-p", "no:cacheprovider", f"--rootdir={root}", f"--basetemp={folder}/tests", *files], plugins
        )


def records(path: Path) -> list[dict[str, Any]]:
    """The lines of a file of results."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def show(path: Path) -> None:
    """Print how many changes were noticed, by folder, and those that were not."""
    counts: dict[str, Counter[bool]] = defaultdict(Counter)
    for record in (record for record in records(path) if record["result"] != NOT_APPLIED):
        noticed = record["result"] not in ("passed", "no tests")
        for folder in ("all", record["file"].split("/")[1]):
            counts[folder][noticed] += 1
        if not noticed:
            print(f"{record['file']}:{record['line']}: {record['kind']} ({record['result']}, {record['tests']} tests)")
            print(f"    - {record['old']}\n    + {record['new']}".replace("\n", "\n      "))
    for folder, count in counts.items():
        print(f"{folder:12} {count[True]} of {count.total()} noticed ({count[True] / count.total():.0%})")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("trace")
    one.add_argument("out", type=Path)
    one.add_argument("tests", nargs="*")
    one = commands.add_parser("run")
    one.add_argument("out", type=Path)
    one.add_argument("folders", nargs="*")
    one.add_argument("--map", type=Path, required=True)
    one.add_argument("--sample", type=int, default=300)
    one.add_argument("--seed", type=int, default=0)
    one.add_argument("--seconds", type=float, default=40)
    one = commands.add_parser("show")
    one.add_argument("out", type=Path)
    options = parser.parse_args()
    if options.command == "trace":
        trace(options.out, options.tests)
    elif options.command == "run":
        run(options)
    else:
        show(options.out)


if __name__ == "__main__":
    main()
