"""The changes that `tests/code_mutation.py` makes to code, and how they are applied."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from tests.code_mutation import PACKAGE, Change, changes_of, chosen_tests, replace_functions

SOURCE = '''"""A module."""

LIMIT = 3


class Counter:
    """Counts."""

    start: int = 1

    def count(self, items: list[int] | None = None, *, strict: bool = True) -> str:
        """The number of items above the limit."""
        assert items is not None
        found = [item for item in items if item > LIMIT]
        if (
            len(found) == 0
            and strict
        ):
            raise ValueError(f"{len(found) + 1} items")
        return str(len(found) - self.start)
'''


def found(tmp_path: Path) -> list[Change]:
    (tmp_path / PACKAGE).mkdir()
    (tmp_path / PACKAGE / "one.py").write_text(SOURCE)
    return changes_of(tmp_path, ("one.py",))


def test_each_expression_is_changed_but_not_messages_types_and_assertions(tmp_path: Path) -> None:
    changes = [(change.line, change.kind, change.new.strip()) for change in found(tmp_path)]
    assert changes == [
        (14, "negated condition", "(not (item > LIMIT))"),
        (14, "comparison", "((item) >= (LIMIT))"),
        (16, "negated condition", "(not (len(found) == 0\n            and strict))"),
        (16, "boolean", "((len(found) == 0) or (strict))"),
        (16, "comparison", "((len(found)) != (0))"),
        (16, "constant", changes[5][2]),
        (19, "dropped statement", "pass"),
        (20, "arithmetic", "((len(found)) + (self.start))"),
    ]
    assert changes[5][2] in ("(1)", "(-1)")


def test_a_change_is_applied_to_functions_that_exist(tmp_path: Path) -> None:
    (change,) = [change for change in found(tmp_path) if change.kind == "arithmetic"]
    path = tmp_path / PACKAGE / "one.py"
    spec = importlib.util.spec_from_file_location("one", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    counter = module.Counter()
    count = counter.count
    assert count([4, 5, 6]) == "2"
    replace_functions(str(path), change.apply(path.read_bytes()))
    assert count([4, 5, 6]) == counter.count([4, 5, 6]) == "4"
    assert path.read_text() == SOURCE and "one" not in sys.modules


def test_the_tests_of_a_change_are_those_of_its_line_shortest_first() -> None:
    change = Change("file.py", 3, 0, "constant", "1", "2")
    traced = {"times": {"slow": 5.0, "quick": 0.1, "other": 0.0, "middle": 1.0}, "lines": {"file.py": {"3": [0, 1, 3]}}}
    assert chosen_tests(change, traced, 2)[0] == ["quick", "middle"]
    assert chosen_tests(change, traced, 10)[0] == ["quick", "middle", "slow"]
    assert chosen_tests(change, traced, 0.01)[0] == ["quick"]
