"""What must hold of every network, on random ones and on those that ship."""

from __future__ import annotations

import copy
import pickle
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from torch import nn

import hiresnet_graph as hrg
from hiresnet_graph.errors import SpecError
from hiresnet_graph.graph import BlockGraph, EdgeRecord, OpGraph
from hiresnet_graph.identifiers import class_name
from hiresnet_graph.lower import interpret
from hiresnet_graph.passes import PASSES, expand, resolve, simplify
from hiresnet_graph.plan import Plan, make_plan
from hiresnet_graph.shapes import Map, Vector
from hiresnet_graph.shipped import spec_names
from tests.recurrent.graphs import make as make_in_time
from tests.strategies import Sample, make, samples

quick = settings(
    max_examples=20, deadline=None, derandomize=True, print_blob=True, suppress_health_check=list(HealthCheck)
)
few = settings(quick, max_examples=12)
SMALL = {
    # What ships, made small enough to run many times.
    "blt": {"width": 2, "size": 16, "steps": 4},
    "cornet_rt": {"input.height": 32, "input.width": 32},
    "densenet121": {"growth": 4, "dense3.depth": 4, "dense4.depth": 3, "input.height": 64, "input.width": 70},
    "densenet40": {"growth": 3, "n": 2},
    "frnn3": {"width": 2, "size": 8},
    "hiresnet18": {"width": 4, "input.height": 9, "input.width": 12},
    "hiresnet18_basic_adjusted": {"input.height": 8, "input.width": 8},
    "hiresnet18_plain_adjusted": {"input.height": 8, "input.width": 8},
    "hiresnet18_resnext_adjusted": {"input.height": 8, "input.width": 8},
    "rcnn": {"width": 4, "size": 16},
    "resnet18": {"width": 8, "input.height": 65, "input.width": 48},
    "resnet20": {"input.height": 9, "input.width": 8},
    "resnet50": {"width": 16, "input.height": 65, "input.width": 48},
    "ror3_56": {"n": 2},
    "unet": {"width": 3, "input.height": 16, "input.width": 24},
    "vgg16": {"hidden": 16, "input.height": 64, "input.width": 64},
}


def net(sample: Sample) -> hrg.Architecture:
    return hrg.loads(sample.yaml, "sample.yaml")


def small(name: str) -> hrg.Architecture:
    return hrg.load(name).override(SMALL[name])


def inputs(plan: Plan, seed: int = 0, batch: int = 3) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(batch, *shape, generator=generator) for shape in plan.inputs.values())


def run(module: Callable[..., Any], x: tuple[torch.Tensor, ...]) -> dict[str, torch.Tensor]:
    """All outputs; dropout draws the same each time."""
    torch.manual_seed(1)
    out = module(*x)
    return out if isinstance(out, dict) else {"": out}


def assert_same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor], *, close: bool = False) -> None:
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert value.shape == two[name].shape and value.dtype == two[name].dtype, name
        if close:
            torch.testing.assert_close(value, two[name], rtol=1e-3, atol=1e-4, equal_nan=False)
        else:
            assert value.isfinite().all(), name
            assert torch.equal(value, two[name]), f"{name}: {(value - two[name]).abs().max()}"


def assert_same_module(one: nn.Module, two: nn.Module, x: tuple[torch.Tensor, ...]) -> None:
    """Equal keys, tensors and outputs, in train mode (with running statistics) and then in eval mode."""
    assert list(one.state_dict()) == list(two.state_dict())
    assert_same(one.state_dict(), two.state_dict())
    for mode in (True, False):
        assert_same(run(one.train(mode), x), run(two.train(mode), x))
        assert_same(one.state_dict(), two.state_dict())


def picture(graph: BlockGraph | OpGraph) -> Any:
    """A copy of the contents of a graph."""
    more = list(graph.edges) if isinstance(graph, BlockGraph) else graph.records
    return copy.deepcopy((graph.name, list(graph.nodes), more, graph.outputs))


# ------------------------------------------------------------------------------------------------- the samples


def test_samples_are_valid_and_varied() -> None:
    seen: Counter[str] = Counter()
    digests, calls = set(), []
    for seed in range(300):
        sample = make(f"varied-{seed}")
        architecture = net(sample)
        architecture.validate()
        seen.update(sample.features)
        digests.add(architecture.plan.digest())
        calls.append(len(architecture.plan.calls))
    assert len(digests) > 290
    assert min(calls) < 15 and max(calls) > 60
    for feature in (
        *("stage", "tied stage", "per_step", "named weights", "one weight, two strides", "alias", "written block"),
        *("template", "template with i", "patch of a block", "patch of a part", "patch by a pattern", "variants"),
        *("skips", "groups of skips", "set +", "set -", "set &", "list of sets", "brackets in a set", "when: always"),
        *("skips: input", "skips: output", "skips: residual", "edge", "named edge", "block on an edge", "gate"),
        *("edge: input", "edge: output", "edge: residual", "two inputs", "several outputs", "input as a level"),
        *(f"merge: {merge}" for merge in ("add", "mean", "concat", "multiply", "weighted", "gated")),
        *(f"spatial: {way}" for way in ("avg", "max", "stride", "adaptive", "nearest", "bilinear")),
        *(f"channels: {way}" for way in ("conv1x1", "pad", "slice", "none")),
        *(
            "conv",
            "plain",
            "basic",
            "bottleneck",
            "resnext",
            "preact_basic",
            "preact_bottleneck",
            "mbconv",
            "dense_layer",
        ),
        *("separable_conv", "conv2d", "pool", "upsample", "squeeze_excite", "groups", "upwards", "dropout"),
    ):
        assert seen[feature] >= 3, f"{feature}: {seen[feature]} of 300"


# ------------------------------------------------------------------------------------------------------- the file


def assert_round_trip(architecture: hrg.Architecture) -> None:
    tree = architecture.patched()
    from_json = hrg.loads(architecture.to_json(), "net.json")
    from_yaml = hrg.loads(from_json.to_yaml(), "net.yaml")
    for other in (from_json, from_yaml, hrg.from_dict(dict(tree))):
        assert other.tree == tree
        assert other.to_yaml() == architecture.to_yaml() and other.to_json() == architecture.to_json()
        assert other.plan.digest() == architecture.plan.digest()
    assert ("$" in architecture.to_yaml()) == ("$" in str(tree))


@quick
@given(samples)
def test_load_and_dump(sample: Sample) -> None:
    assert hrg.loads(sample.yaml).tree == sample.spec
    assert hrg.loads(sample.json).tree == sample.spec
    for variant in (None, *net(sample).variants):
        assert_round_trip(net(sample).variant(variant))


@pytest.mark.parametrize("name", spec_names())
def test_load_and_dump_what_ships(name: str) -> None:
    for variant in (None, *hrg.load(name).variants):
        assert_round_trip(hrg.load(name).variant(variant))


def shuffled(value: Any, rng: random.Random, path: tuple[str, ...] = ()) -> Any:
    """The same spec in another order: of keys, of entries of `edges`, of chains, of levels and of ends."""
    key = path[-1] if path else ""
    if isinstance(value, dict):
        items = list(value.items())
        # The order of nodes says something, and that of several inputs is that of the module's arguments.
        if key not in ("nodes", "input"):
            rng.shuffle(items)
        return {k: shuffled(v, rng, (*path, k)) for k, v in items}
    if isinstance(value, list):
        items = [shuffled(v, rng, (*path, "")) for v in value]
        if key in ("edges", "levels", "from", "to"):
            rng.shuffle(items)
        if key == "flow":
            # Where nothing leaves the input, the first chain starts there.
            first, rest = items[:1], items[1:]
            rng.shuffle(rest)
            starts = any(str(chain).startswith(("input ->", "left ->")) for chain in items)
            items = [*rest, *first] if starts else [*first, *rest]
        return items
    return value


def assert_order_does_not_matter(spec: dict[str, Any], seed: int) -> None:
    digest = hrg.from_dict(spec).plan.digest()
    for i in range(3):
        other = shuffled(spec, random.Random(f"{seed}/{i}"))
        assert other == spec or "edges" in str(spec) or "flow" in str(spec)
        assert hrg.from_dict(other).plan.digest() == digest


@quick
@given(samples)
def test_order_does_not_matter(sample: Sample) -> None:
    assert_order_does_not_matter(sample.spec, 0)


@pytest.mark.parametrize("name", spec_names())
def test_order_does_not_matter_in_what_ships(name: str) -> None:
    assert_order_does_not_matter(dict(hrg.load(name).patched()), 0)


# ------------------------------------------------------------------------------------------------- removing an edge


def without_some_edges(sample: Sample) -> Iterator[tuple[hrg.Architecture, EdgeRecord]]:
    """The spec without one of its edges, for three of them, and the record of that edge."""
    records = [record for record in net(sample).plan.edges if record.family in ("skip", "edge")]
    for record in random.Random(0).sample(records, min(3, len(records))):
        spec = copy.deepcopy(sample.spec)
        spec.pop("variants", None)
        if record.family == "skip":
            group = spec["skips"]
            for part in record.name.split(".")[1:-1]:
                group = group[part]
            edges = group["edges"]
            whole = " + ".join(f"({text})" for text in ([edges] if isinstance(edges, str) else edges))
            prefix = record.name.rpartition(".")[0]
            is_last = sum(one.family == "skip" and one.name.rpartition(".")[0] == prefix for one in records) == 1
            group["edges"] = "none" if is_last else f"{whole} - {record.ends[0]}>{record.ends[1]}"
        else:
            name = record.name.removeprefix("edges.")
            plain = [f"{entry['from']}__{entry['to']}".replace(".", "_") for entry in spec["edges"]]
            indices = [i for i, entry in enumerate(spec["edges"]) if entry.get("name") == name]
            indices += [i for i, entry in enumerate(spec["edges"]) if "name" not in entry and name in (plain[i], "")]
            if not indices:
                # A block of a stage that the edge names by the stage.
                continue
            del spec["edges"][indices[0]]
        yield hrg.from_dict(spec), record


def assert_an_edge_adds(sample: Sample) -> int:
    """Without an edge, there are not more parameters, and every other weight starts the same. How many were tried."""
    before = net(sample).plan
    tensors, state = before.tensors(), net(sample).build(seed=3).state_dict()
    found = 0
    for architecture, record in without_some_edges(sample):
        found += 1
        after = architecture.plan
        assert after.digest() != before.digest()
        concatenated = record.merge == "concat"
        if not concatenated:
            # A concatenation changes the width of what follows, which may then need a projection of its own.
            assert architecture.cost().parameters <= net(sample).cost().parameters
            assert after.tensors().items() <= tensors.items()
        assert not any(name.startswith(f"{record.name}.") for name in after.tensors())
        for name, value in architecture.build(seed=3).state_dict().items():
            if after.tensors()[name] == tensors.get(name):
                assert torch.equal(value, state[name]), name
            else:
                assert concatenated
    return found


@quick
@given(samples)
def test_removing_an_edge(sample: Sample) -> None:
    assume(assert_an_edge_adds(sample))


@pytest.mark.parametrize("name", ["hiresnet18", "unet", "ror3_56"])
def test_removing_an_edge_from_what_ships(name: str) -> None:
    full = small(name)
    state = full.build(seed=1).state_dict()
    bare = full.with_edges("none")
    rest = bare.build(seed=1).state_dict()
    assert bare.cost().parameters < full.cost().parameters
    assert all(torch.equal(value, state[key]) for key, value in rest.items() if value.shape == state[key].shape)
    if name == "hiresnet18":
        # A projection of its own for each edge, and nothing else: the counts add up.
        parts = sum(
            full.cost().parameters - full.with_edges(f"full - {a}>{b}").cost().parameters
            for a, b in [record.ends for record in full.plan.edges if record.family == "skip"]
        )
        assert parts == full.cost().parameters - bare.cost().parameters


# ------------------------------------------------------------------------------------------------- nested blocks


def _renamed(value: Any) -> Any:
    """A spec whose params are not called like keys of nodes, which params of a block must not be."""
    if isinstance(value, str):
        return re.sub(r"\b(block|depth)\b", r"the_\1", value) if value.startswith("$") else value
    if isinstance(value, list):
        return [_renamed(item) for item in value]
    if not isinstance(value, dict):
        return value
    found = {key: _renamed(item) for key, item in value.items()}
    if isinstance(params := found.get("params"), dict):
        found["params"] = {f"the_{key}" if key in ("block", "depth") else key: item for key, item in params.items()}
    return found


def nested(sample: Sample) -> dict[str, Any]:
    """The same network with all but its head in a block of its own."""
    spec = _renamed(copy.deepcopy(sample.spec))
    outside = {name: spec["nodes"].pop(name) for name in ("flat", "head") if name in spec["nodes"]}
    chains = [spec["flow"]] if isinstance(spec["flow"], str) else spec["flow"]
    inner = [chain.split(" -> head")[0].split(" -> flat")[0] for chain in chains]
    body = {"params": spec["params"], "nodes": spec["nodes"], "flow": inner}
    body |= {key: spec[key] for key in ("skips", "edges") if key in spec}
    return {
        "name": "nested",
        "params": spec["params"],  # which entries of `blocks` without params of their own use
        "input": spec["input"],
        "blocks": {**spec.get("blocks", {}), "body": body},
        "nodes": {"body": "body", **outside},
        "flow": " -> ".join(["body", *outside]),
    }


def can_be_nested(sample: Sample) -> bool:
    return not sample.features & {"two inputs", "several outputs", "named weights"}


@quick
@given(samples.filter(can_be_nested))
def test_a_nested_block_is_the_same_as_what_it_holds(sample: Sample) -> None:
    assert_nested_is_inline(sample)


def assert_nested_is_inline(sample: Sample) -> None:
    inline, inside = net(sample), hrg.from_dict(nested(sample))
    assert inside.cost() == inline.cost()
    one, two = inline.build(seed=1), inside.build(seed=2)
    renamed = {
        name if name.split(".")[0] in ("flat", "head") else f"body.{name}": value
        for name, value in one.state_dict().items()
    }
    assert set(renamed) == set(two.state_dict())
    two.load_state_dict(renamed)
    x = inputs(inline.plan)
    for mode in (True, False):
        assert_same(rename(run(one.train(mode), x)), rename(run(two.train(mode), x)))


def rename(outputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    (value,) = outputs.values()
    return {"": value}


# ----------------------------------------------------------------------------------------------------------- passes


def assert_passes_are_pure(blocks: BlockGraph) -> None:
    before = picture(blocks)
    graph = expand(blocks)
    assert picture(blocks) == before, "expand changed its input"
    assert picture(expand(blocks)) == picture(graph)
    assert_is_valid(graph)
    for apply in PASSES:
        before = picture(graph)
        after = apply(graph)
        assert picture(graph) == before, f"{apply.__name__} changed its input"
        assert_is_valid(after)
        assert picture(apply(after)) == picture(after), f"{apply.__name__} is not idempotent"
        graph = after
    assert make_plan(simplify(graph)).digest() == make_plan(graph).digest() == make_plan(resolve(blocks)).digest()


def assert_is_valid(graph: OpGraph) -> None:
    # A copy, since a graph remembers that it was checked.
    OpGraph(graph.name, graph.nodes, graph.outputs, graph.records, graph.time).check()


@quick
@given(samples)
def test_passes(sample: Sample) -> None:
    assert_passes_are_pure(net(sample).graph)


@pytest.mark.parametrize("name", spec_names())
def test_passes_on_what_ships(name: str) -> None:
    assert_passes_are_pure(hrg.load(name).graph)


@quick
@given(samples)
def test_expansion_gives_the_shapes_that_torch_does(sample: Sample) -> None:
    plan = make_plan(expand(net(sample).graph))
    module = net(sample).build().eval()
    shapes = {name: tuple(value.shape[1:]) for name, value in run(module, inputs(plan)).items()}
    told = {call.name: tuple(call.shape) for call in plan.calls}
    assert list(shapes.values()) == [told[value] for value in plan.outputs.values()]
    assert all(isinstance(shape, Map | Vector) for shape in plan.inputs.values())


# ----------------------------------------------------------------------------------------------------- the module


def assert_interpreter_agrees(architecture: hrg.Architecture) -> None:
    """Outputs, running statistics and gradients are those of the plan run call by call, bit for bit."""
    plan = architecture.plan
    one, two = architecture.build(seed=5), architecture.build(seed=5)
    x = inputs(plan)
    for mode in (True, False):
        two.train(mode)
        assert_same(run(one.train(mode), x), run(lambda *args: interpret(plan, two, *args), x))
        assert_same(one.state_dict(), two.state_dict())
        gradients = []
        for module, call in ((one, one), (two, lambda *args: interpret(plan, two, *args))):
            module.zero_grad()
            leaves = tuple(value.clone().requires_grad_() for value in x)
            sum((value * value).mean() for value in run(call, leaves).values()).backward()
            # Operations that overwrite what they read must leave the inputs alone.
            assert all(torch.equal(leaf, value) for leaf, value in zip(leaves, x, strict=True))
            gradients.append([*(leaf.grad for leaf in leaves), *(p.grad for p in module.parameters())])
        for p, q in zip(*gradients, strict=True):
            assert (p is None) == (q is None)
            assert p is None or (p.isfinite().all() and torch.equal(p, q))
        assert all(p.grad is not None for p in one.parameters())


@quick
@given(samples)
def test_the_module_does_what_the_plan_says(sample: Sample) -> None:
    assert_interpreter_agrees(net(sample))


@pytest.mark.parametrize("name", SMALL)
def test_the_module_does_what_the_plan_says_of_what_ships(name: str) -> None:
    assert_interpreter_agrees(small(name))


def assert_emitted_source_agrees(architecture: hrg.Architecture) -> None:
    module = architecture.build(seed=2)
    source = architecture.source()
    lines = [line for line in source.splitlines() if line.startswith(("import ", "from "))]
    assert {line.split()[1].split(".")[0] for line in lines} <= {"torch", "__future__"}, lines
    names: dict[str, Any] = {"__name__": "emitted"}
    exec(compile(source, "emitted.py", "exec"), names)
    emitted = names[class_name(architecture.name)]()
    assert set(emitted.state_dict()) == set(module.state_dict())
    emitted.load_state_dict(module.state_dict())
    back = architecture.build(seed=3)
    back.load_state_dict(emitted.state_dict())
    x = inputs(architecture.plan)
    for mode in (True, False):
        assert_same(run(module.train(mode), x), run(emitted.train(mode), x))
        assert_same(module.state_dict(), {name: emitted.state_dict()[name] for name in module.state_dict()})
    assert_same(run(back.train(False), x), run(back, x))


HEAD = "name: net\ninput: {channels: 3, height: 8, width: 8}\n"
ODD = {
    # Small networks where names, places or shapes could be confused.
    "a part and a node of one name": "nodes: {a: {block: conv, width: 3}, a_conv: tanh, b: relu}\n"
    "flow: a -> a_conv -> b\n",
    "a block and a node of one name": "nodes: {s: {block: conv, width: 3, depth: 2}, s_block1: relu}\n"
    "flow: s -> s_block1\n",
    "names of operations": "nodes: {add: relu, mul: tanh, relu: {block: identity, merge: multiply}}\n"
    "flow: add -> mul -> relu\nedges: [{from: add, to: relu}, {from: mul, to: relu, name: x}]\n",
    "names of modules": "nodes: {x: {block: conv, width: 3}, torch: relu, nn: relu, F: relu, weight: tanh}\n"
    "flow: x -> torch -> nn -> F -> weight\n",
    "weights of an operation and of a stage": "nodes: {s: {block: basic, width: 3, depth: 2, weights: a}, a: "
    "{block: conv2d, width: 3}}\nflow: s -> a\n",
    "the input as an output": "nodes: {a: relu}\noutputs: [a, input]\n",
    "one output twice": "nodes: {a: relu, s: {block: relu, depth: 1}}\nflow: a -> s\noutputs: [s, s.block1]\n",
    "nothing but identities": "nodes: {a: identity, b: identity}\nflow: a -> b\n",
    "one value twice": "nodes: {a: identity, b: identity, t: identity}\nflow: [input -> a -> t, input -> b -> t]\n",
    "values with several readers": "nodes: {a: {block: conv, width: 3, norm: none}, b: relu, c: relu6, t: silu}\n"
    "flow: [a -> b -> t, a -> c -> t]\nedges: [{from: a.conv, to: t}]\n",
    "edges within a stage": "nodes: {s: {block: basic, width: 3, depth: 3}}\n"
    "edges: [{from: s.block1, to: s, slot: output}, {from: s.block1.conv1, to: s.block2, slot: residual}]\n",
    "even kernels": "nodes: {a: {block: conv, width: 3, kernel_size: 2}, "
    "b: {block: conv, width: 3, kernel_size: [2, 4], stride: 2}}\nflow: a -> b\nskips: {edges: [a>b]}\n",
    "a group and an edge of one name": "nodes: {a: relu, b: {block: conv, width: 3}}\nflow: a -> b\n"
    "skips: {g: {edges: [a>b], projection: {when: always}}}\n"
    "edges: [{from: a, to: b, slot: output, name: g, projection: {when: always}}]\n",
}


@pytest.mark.parametrize("name", ODD)
def test_odd_networks(name: str) -> None:
    architecture = hrg.loads(HEAD + ODD[name], "odd.yaml")
    architecture.validate()
    assert_round_trip(architecture)
    assert_interpreter_agrees(architecture)
    assert_emitted_source_agrees(architecture)
    assert_survives_copies(architecture)


@quick
@given(samples)
def test_emitted_source_is_the_same_network(sample: Sample) -> None:
    assert_emitted_source_agrees(net(sample))


@pytest.mark.parametrize("name", SMALL)
def test_emitted_source_of_what_ships_is_the_same_network(name: str) -> None:
    assert_emitted_source_agrees(small(name))


def assert_survives_copies(architecture: hrg.Architecture) -> None:
    module, x = architecture.build(seed=4), inputs(architecture.plan)
    for other in (pickle.loads(pickle.dumps(module)), copy.deepcopy(module)):
        assert_same_module(copy.deepcopy(module), other, x)


@few
@given(samples)
def test_pickle_and_deepcopy(sample: Sample) -> None:
    assert_survives_copies(net(sample))


@pytest.mark.parametrize("name", ["hiresnet18", "unet", "densenet40"])
def test_pickle_and_deepcopy_of_what_ships(name: str) -> None:
    assert_survives_copies(small(name))


@pytest.fixture
def process_group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path_factory.mktemp('group')}/store", rank=0, world_size=1
    )
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("process_group")
def test_distributed_data_parallel() -> None:
    for architecture in [*(net(make(f"ddp-{seed}")) for seed in range(8)), small("hiresnet18"), small("unet")]:
        module, x = architecture.build(seed=6), inputs(architecture.plan)
        wrapped = nn.parallel.DistributedDataParallel(architecture.build(seed=6))
        assert [f"module.{name}" for name in module.state_dict()] == list(wrapped.state_dict())
        for mode in (True, False):
            one, two = run(module.train(mode), x), run(wrapped.train(mode), x)
            assert_same(one, two)
        for model in (module.train(), wrapped.train()):
            sum((value * value).mean() for value in run(model, x).values()).backward()
        for (name, p), q in zip(module.named_parameters(), wrapped.parameters(), strict=True):
            assert p.grad is not None and q.grad is not None and torch.equal(p.grad, q.grad), name


def assert_exports(architecture: hrg.Architecture) -> None:
    module, x = architecture.build(seed=7).eval(), inputs(architecture.plan)
    program = torch.export.export(module, x)
    assert_same(run(module, x), run(program.module(), x))


@pytest.mark.parametrize("seed", range(5))
def test_exported_program(seed: int) -> None:
    assert_exports(net(make(f"export-{seed}")))


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_exported_program_of_what_ships(name: str) -> None:
    assert_exports(small(name))


def assert_compiles(architecture: hrg.Architecture, backend: str) -> None:
    torch._dynamo.reset()
    module, x = architecture.build(seed=8), inputs(architecture.plan)
    compiled = torch.compile(copy.deepcopy(module), fullgraph=True, backend=backend)
    for mode in (True, False):
        assert_same(run(module.train(mode), x), run(compiled.train(mode), x), close=backend != "eager")


@pytest.mark.parametrize("seed", range(6))
def test_compiles_as_one_graph(seed: int) -> None:
    assert_compiles(net(make(f"compile-{seed}")), "eager")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_compiles_to_machine_code(seed: int) -> None:
    sample = next(s for i in range(100) if "dropout" not in (s := make(f"inductor-{seed}-{i}")).features)
    assert_compiles(net(sample), "inductor")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hiresnet18", "unet"])
def test_compiles_what_ships_to_machine_code(name: str) -> None:
    assert_compiles(small(name), "inductor")


# --------------------------------------------------------------------------------------------------------- weights


@few
@given(samples)
def test_building_draws_no_global_randomness(sample: Sample) -> None:
    architecture = net(sample)
    state, python = torch.get_rng_state(), random.getstate()
    one = architecture.build(seed=1).state_dict()
    assert torch.equal(torch.get_rng_state(), state) and random.getstate() == python
    torch.manual_seed(99)
    assert_same(one, architecture.build(seed=1).state_dict())
    other = architecture.build(seed=2).state_dict()
    drawn = [
        name for name, tensor in architecture.plan.tensors().items() if tensor.init not in ("ones", "zeros", "constant")
    ]
    assert drawn and all(not torch.equal(one[name], other[name]) for name in drawn)
    first = {name: value for name, value in one.items() if name in drawn}
    assert len({value.flatten()[:4].numpy().tobytes() for value in first.values() if value.numel() >= 4}) == len(
        [value for value in first.values() if value.numel() >= 4]
    )


@few
@given(samples)
def test_the_state_dict_is_what_the_plan_says(sample: Sample) -> None:
    architecture = net(sample)
    module, tensors = architecture.build(), architecture.plan.tensors()
    assert {name: tuple(value.shape) for name, value in module.state_dict().items()} == {
        name: tensor.shape for name, tensor in tensors.items()
    }
    assert sum(p.numel() for p in module.parameters()) == architecture.cost().parameters
    assert {name for name, _ in module.named_parameters()} == {name for name, t in tensors.items() if t.trainable}


@pytest.mark.slow
@pytest.mark.parametrize("batch", range(20))
def test_many_samples(batch: int) -> None:
    for i in range(20):
        sample = make(f"many-{batch}-{i}")
        architecture = net(sample)
        assert_round_trip(architecture)
        assert_order_does_not_matter(sample.spec, i)
        assert_passes_are_pure(architecture.graph)
        assert_interpreter_agrees(architecture)
        assert_emitted_source_agrees(architecture)
        assert_survives_copies(architecture)
        assert_an_edge_adds(sample)
        if can_be_nested(sample):
            assert_nested_is_inline(sample)


@pytest.mark.parametrize("seed", range(7000, 7012))
def test_networks_in_time(seed: int) -> None:
    """All that holds of networks without time; what time itself means is held in `tests/recurrent`."""
    sample = make_in_time(seed)
    architecture = sample.arch
    assert hrg.loads(sample.yaml).tree == sample.spec
    assert_round_trip(architecture)
    assert_order_does_not_matter(sample.spec, seed)
    assert_passes_are_pure(architecture.graph)
    assert_interpreter_agrees(architecture)
    assert_emitted_source_agrees(architecture)
    assert_survives_copies(architecture)


@pytest.mark.parametrize("seed", range(7100, 7104))
def test_networks_in_time_export_and_compile(seed: int) -> None:
    assert_exports(make_in_time(seed).arch)
    assert_compiles(make_in_time(seed).arch, "eager")


@pytest.mark.slow
@pytest.mark.parametrize("batch", range(20))
def test_many_networks_in_time(batch: int) -> None:
    for seed in range(8000 + 20 * batch, 8020 + 20 * batch):
        test_networks_in_time(seed)


@quick
@given(samples)
def test_variants_that_change_nothing_are_the_same_network(sample: Sample) -> None:
    architecture = net(sample)
    assume("described" in architecture.variants)
    assert architecture.variant("described").plan.digest() == architecture.plan.digest()
    assert architecture.override({"name": "other"}).plan.digest() == architecture.plan.digest()


def test_a_failed_build_says_why() -> None:
    with pytest.raises(SpecError):
        hrg.loads("name: x\ninput: {channels: 3}\nnodes: {a: {block: conv, width: 3}}\n").build()
