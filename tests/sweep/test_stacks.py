"""Which runs can be one program, and how they are split into stacks."""

import time
from pathlib import Path
from typing import Any

import pytest

import hiresnet_graph as hrg
from hiresnet_graph.errors import UsageError
from hiresnet_graph.stack import predicted_bytes
from hiresnet_graph.stack.grouping import StackableGroup, SupergraphStack
from hiresnet_graph.stack.request import StackMember
from hiresnet_graph.stack.supergraph import mask_of
from hiresnet_graph.sweep import Study, StudyPlan, read_study, resources
from hiresnet_graph.sweep.execution import ExecutionPlan
from hiresnet_graph.sweep.options import ExecutionOptions
from hiresnet_graph.sweep.prepare import prepare_study
from hiresnet_graph.sweep.resources import memory_budget
from hiresnet_graph.sweep.stacks import stack_runs
from hiresnet_graph.train import Recipe
from tests.train.states import TEXT


def grouped(study: Study) -> tuple[StudyPlan, tuple[StackableGroup, ...]]:
    prepared = prepare_study(study, None, ExecutionOptions(stack=8))
    plan, groups = prepared.plan, []
    for group in prepared.groups:
        assert isinstance(group, StackableGroup)
        groups.append(group)
        for key in group.keys:  # as a worker computes it
            assert mask_of(group.supergraph.plan, hrg.loads(plan.requests[key].spec).plan) is not None
    return plan, tuple(groups)


def labels(plan: StudyPlan, group: StackableGroup) -> list[str]:
    return list(dict.fromkeys(plan.requests[key].label for key in group.keys))


def test_table_2_is_35_runs_of_one_network_and_5_of_another() -> None:
    plan, groups = grouped(read_study("table2"))
    assert [(len(group.keys), labels(plan, group)) for group in groups] == [
        (35, ["original", "full", "in", "out", "p1", "p2", "p3"]),
        (5, ["adjusted"]),
    ]
    stacks = stack_runs(groups, set(plan.requests), "stacked", 16)
    assert [len(stack.keys) for stack in stacks] == [12, 12, 11, 5]
    # in the order of the study: all networks with the first seeds first
    assert [key for stack in stacks[:3] for key in stack.keys] == [
        key for key in plan.requests if key in groups[0].keys
    ]
    assert isinstance(stacks[0], SupergraphStack)
    assert hrg.loads(stacks[0].supergraph).plan.digest() == read_study("table2").base().with_edges("full").plan.digest()
    assert [len(stack.keys) for stack in stack_runs(groups, set(plan.requests), "stacked", 40)] == [35, 5]


def test_the_supergraph_need_not_be_in_the_study(tiny: hrg.Architecture) -> None:
    _, groups = grouped(Study(network=tiny, variants=["p1", "p2", "none"], seeds=2))
    assert [len(group.keys) for group in groups] == [6]
    assert groups[0].supergraph.plan.digest() == tiny.with_edges("full").plan.digest()
    one, groups = grouped(Study(network=tiny, variants=["p2"], seeds=3))
    assert [len(group.keys) for group in groups] == [3]
    assert groups[0].supergraph.plan.digest() == one.networks[0].plan


@pytest.mark.parametrize(
    ("fields", "sizes"),
    [
        ({"grid": {"lr": (0.1, 0.01), "weight_decay": (0.0, 0.1)}}, [16]),
        ({"grid": {"schedule": ("step", "cosine")}}, [8]),
        ({"grid": {"batch_size": (50, 100)}}, [4, 4]),
        ({"grid": {"optimizer": ("sgd", "adam"), "lr": (0.1, 0.01)}}, [8, 8]),
        ({"grid": {"width": (4, 6)}}, [4, 4]),
        ({"grid": {"stage1.block": ("conv", "basic")}}, [4, 4]),
        ({"changes": {"skips.merge": "concat"}}, [2, 2]),
        ({"changes": {"skips.merge": "mean"}}, [4]),
        ({"recipe": Recipe(compile=True)}, []),
        ({"grid": {"compile": (False,), "lr": (0.1, 0.01)}}, [8]),
    ],
)
def test_which_runs_are_grouped(tiny: hrg.Architecture, fields: dict[str, Any], sizes: list[int]) -> None:
    _, groups = grouped(Study(network=tiny, variants=["none", "full"], seeds=2, **fields))
    assert [len(group.keys) for group in groups] == sizes


def test_networks_in_time_are_grouped_by_transitions() -> None:
    states = hrg.loads(TEXT, "states.yaml")
    _, groups = grouped(Study(network=states, group="transitions", variants=["all", "adjacent"], seeds=2))
    assert sum(len(group.keys) for group in groups) == 4
    computed_again = Recipe(checkpoint_steps=1)
    _, none = grouped(Study(network=states, group="transitions", variants=["all"], seeds=2, recipe=computed_again))
    assert none == ()


def test_stacks_are_even_and_in_order() -> None:
    def split(keys: str, limit: int) -> list[str]:
        stack = SupergraphStack(tuple(keys), "", "stacked")
        return ["".join(part.keys) for part in stack.split(limit)]

    assert split("abcdefg", 5) == ["abcd", "efg"]
    assert split("abcdefg", 7) == ["abcdefg"]
    assert split("abcdefg", 2) == ["ab", "cd", "ef", "g"]
    assert split("abcdefghijk", 4) == ["abcd", "efgh", "ijk"]
    assert "".join(split("abcdefghijk", 3)) == "abcdefghijk"
    assert split("", 3) == []


def test_finished_and_single_runs_are_in_no_stack(tiny: hrg.Architecture) -> None:
    variants = {"none": "none", "full": "full", "wide": {"width": 6}}
    plan, groups = grouped(Study(network=tiny, variants=variants, seeds=2))
    keys = list(plan.requests)
    (stack,) = stack_runs(groups[:1], set(keys[2:]), "stacked", 8)
    assert set(stack.keys) == set(keys[2:]) & set(groups[0].keys)
    assert stack_runs(groups, set(keys), "eager", 1) == ()
    single, alone = grouped(Study(network=tiny, variants=["none"], seeds=1))
    assert stack_runs(alone, set(single.requests), "stacked", 8) == ()
    # a GPU can launch the steps of a single run at once
    (one,) = stack_runs(alone, set(single.requests), "graph", 1)
    assert isinstance(one, SupergraphStack) and one.keys == tuple(single.requests) and one.backend == "branches"
    each = stack_runs(groups, set(keys), "graph", 1)
    assert [len(stack.keys) for stack in each] == [1] * len(keys)
    assert isinstance(stack, SupergraphStack)
    request = stack.work(plan.requests, {key: Path(key) for key in keys}).request
    assert [member.key for member in request.runs] == list(stack.keys)
    assert isinstance(request.runs[0], StackMember) and request.backend == "stacked"


def test_stacks_are_as_large_as_memory_allows(tiny: hrg.Architecture) -> None:
    plan, groups = grouped(Study(network=tiny, variants=["none", "full"], seeds=8))
    four = predicted_bytes(tiny.plan, 4, 100, low_precision=False)

    def sizes(room: int) -> list[int]:
        return [len(stack.keys) for stack in stack_runs(groups, set(plan.requests), "stacked", 16, budget=room)]

    assert sizes(100 * four) == [16]
    assert sizes(four + 1) == [4, 4, 4, 4]
    assert sizes(four - 1) == [3, 3, 3, 3, 2, 2]
    assert sizes(four // 2) == []  # each is trained alone, which takes a third of the memory
    # a study that was started in stacks is resumed in stacks, whatever memory is free
    resumed = stack_runs(groups, set(plan.requests), "stacked", 16, budget=0, is_resumed=True)
    assert [len(stack.keys) for stack in resumed] == [3, 3, 3, 3, 2, 2]
    assert [len(stack.keys) for stack in stack_runs(groups, set(plan.requests), "branches", 16, budget=four // 2)] == [
        2
    ] * 8
    assert stack_runs(groups, set(plan.requests), "branches", 16, budget=four // 5) == ()
    half, two = memory_budget(["cpu"], 2), memory_budget(["cpu"], 1)
    assert half is None or two is None or 0 < half < two


def test_cached_files_count_as_free_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "own"
    monkeypatch.setattr(resources, "_CGROUP", tmp_path)
    monkeypatch.setattr(resources, "_OWN_GROUPS", own)
    monkeypatch.setattr(resources, "_available_memory", lambda: None)
    assert memory_budget(["cpu"], 1) is None
    own.write_text("0::/\n")
    assert memory_budget(["cpu"], 1) is None
    (tmp_path / "memory.current").write_text("900\n")
    (tmp_path / "memory.stat").write_text("anon 300\nfile 600\ninactive_file 400\nactive_file 150\nslab 50\n")
    (tmp_path / "memory.max").write_text("1000\n")
    assert memory_budget(["cpu"], 1) == int(0.8 * (1000 - 350))
    (tmp_path / "memory.max").write_text("max\n")
    assert memory_budget(["cpu"], 1) is None


def test_the_smallest_limit_of_a_control_group_and_those_above_it_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a job of Slurm, whose limit is that of a group above the process; in both versions of control groups."""
    monkeypatch.setattr(resources, "_CGROUP", tmp_path)
    monkeypatch.setattr(resources, "_OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(resources, "_available_memory", lambda: None)
    limits = {"slice": 1000, "slice/job": 700, "slice/job/step": None, "memory/slice": 500}
    for name, limit in limits.items():
        group, is_first = tmp_path / name, name.startswith("memory")
        group.mkdir(parents=True)
        (group / ("memory.limit_in_bytes" if is_first else "memory.max")).write_text(f"{limit or 'max'}\n")
        (group / ("memory.usage_in_bytes" if is_first else "memory.current")).write_text("100\n")
        total = "total_" if is_first else ""
        (group / "memory.stat").write_text(f"{total}inactive_file 10\n{total}active_file 20\n")
    (tmp_path / "own").write_text("0::/slice/job/step\n")
    assert memory_budget(["cpu"], 1) == int(0.8 * (700 - 70))
    (tmp_path / "own").write_text("4:memory:/slice/job\n1:cpu:/\n0::/\n")
    assert memory_budget(["cpu"], 1) == int(0.8 * (500 - 70))


def test_runs_resume_with_those_at_the_same_cursor(tiny: hrg.Architecture) -> None:
    plan, groups = grouped(Study(network=tiny, variants=["none"], seeds=8))
    places = [
        {(3, 0), (2, 0)},  # a stack that was killed while saving: (2, 0) is common
        {(2, 0), (1, 0)},
        {(0, 0)},  # not started
        {(2, 0), (1, 0)},
        {(7, 5), (6, 5)},  # another stack
        {(0, 0)},
        {(7, 5), (6, 5)},
        {(1, 0), (0, 0)},  # has saved once
    ]
    of = dict(zip(plan.requests, places, strict=True))
    stacks = stack_runs(groups, set(plan.requests), "stacked", 8, cursors=of.__getitem__)
    order = list(plan.requests)
    assert [[order.index(key) for key in stack.keys] for stack in stacks] == [[0, 1, 3], [2, 5], [4, 6], [7]]


def test_valid_stack_sizes() -> None:
    found = [ExecutionOptions(stack=word).stack_size for word in ("off", "auto", "8", 12)]
    assert found == [1, None, 8, 12]
    for wrong in ("on", "1", 0, -3, "2.5", ""):
        with pytest.raises(UsageError, match=r"stack: must be 'auto', 'off' or a number of runs \(2 to 10,000\), not "):
            ExecutionOptions(stack=wrong).check()
    assert (
        str(ExecutionPlan(backend="stacked", stack=8, workers=2))
        == "2 workers x 1 thread, 8 runs as one program (stacked)"
    )
    assert str(ExecutionPlan(threads=4)) == "1 worker x 4 threads, each run by itself (eager)"


def test_many_unrelated_networks_are_grouped_quickly(tiny: hrg.Architecture) -> None:
    widths = tuple(range(1, 61))
    study = Study(network=tiny, variants=["none"], seeds=2, grid={"width": widths})
    start = time.process_time()
    _, groups = grouped(study)
    assert [len(group.keys) for group in groups] == [2] * len(widths)
    assert time.process_time() - start < 20
