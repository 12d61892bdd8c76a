"""Costs and structure of a network as plain data: the content of `hrg show` and `hrg diff`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from hiresnet_graph.architecture import Architecture
from hiresnet_graph.cli.failure import problem_data
from hiresnet_graph.cost import Cost, count_folded, count_parts, macs_per_step
from hiresnet_graph.errors import SpecError, UsageError
from hiresnet_graph.memory import step_memory
from hiresnet_graph.ops import format_scale
from hiresnet_graph.passes.timing import along_flow, format_step_ranges
from hiresnet_graph.plan import Call, Plan
from hiresnet_graph.shapes import Shape

if TYPE_CHECKING:
    from hiresnet_graph.train.recipe import Recipe


def summarize(network: Architecture, calls: bool = False) -> dict[str, Any]:
    """Totals, nodes and edges of a network; shapes are [channels, height, width] or [length].

    `parameters` includes the copies of single steps, `parameters_folded` does not.

    Args:
        calls: Include the primitive calls.
    """
    plan = network.plan
    parts, time = count_parts(plan), _time(network)
    shapes = dict(plan.inputs) | {call.name: call.shape for call in plan.calls}
    data: dict[str, Any] = {
        "name": plan.name,
        "variant": network.chosen,
        "description": str(network.tree.get("description", "")),
        **_costs(sum(parts.values(), Cost())),
        "parameters_folded": count_folded(plan),
        "digest": plan.digest(),
        "inputs": {name: list(shape) for name, shape in plan.inputs.items()},
        "outputs": {name: list(shapes[value]) for name, value in plan.outputs.items()},
        "nodes": [
            {
                "name": node.name,
                "block": node.block,
                "stage": node.stage or None,
                "shape": list(node.shape),
                "holds": None if time is None else time["holds"][node.name],
                **_costs(parts.get(node.name, Cost())),
            }
            for node in (plan.nodes if time is None else along_flow(plan.nodes, plan.edges))
        ],
        "edges": [
            {
                "name": edge.name,
                "from": edge.ends[0] or edge.source,
                "to": edge.ends[1] or edge.target,
                "family": edge.family,
                "slot": edge.slot,
                "merge": edge.merge or None,
                "projection": edge.projection or "identity",
                "scale": format_scale(edge.scale) or None,
                "gate": edge.gate or None,
                "distance": edge.distance,
                "delay": edge.delay,
                "at": None if edge.at is None else list(edge.at),
                **_costs(parts.get(edge.name, Cost())),
                "source": edge.source,
                "target": edge.target,
                "origin": str(edge.origin),
            }
            for edge in plan.edges
        ],
    }
    data["share"] = shares(data)
    data["time"] = time
    data["warnings"] = [problem_data(problem) for problem in network.warnings]
    if calls:
        data["calls"] = _calls(plan)
    return data


def summarize_training(network: Architecture, recipe: Recipe) -> dict[str, Any]:
    """The estimated memory of a training step, and that of the network without skips (None if it has none).

    Raises:
        UsageError: The recipe does not fit the network.
    """
    from hiresnet_graph.train.memory import training_memory
    from hiresnet_graph.train.parameter_rules import check_rules

    if error := check_rules(recipe, [network.plan]) if network.cost().parameters else "":
        raise UsageError(f"recipe: {error}")
    has_skips = any(edge.family == "skip" for edge in network.plan.edges)
    plain = _without_skips(network) if has_skips else None
    fields = ("batch_size", "precision", "optimizer", "checkpoint", "checkpoint_steps")
    return {
        **{name: getattr(recipe, name) for name in fields},
        **training_memory(network.plan, recipe)._asdict(),
        "without_skips": None if plain is None else training_memory(plain, recipe)._asdict(),
    }


def _without_skips(network: Architecture) -> Plan | None:
    """The network without all skips; None if that is no network."""
    for group in network.section()[0].skips:
        network = network.with_edges("none", group or None)
    try:
        return network.plan
    except SpecError:
        return None


def _time(network: Architecture) -> dict[str, Any] | None:
    """Steps, readouts and the nodes' values over time; None for a network without `time`."""
    found, folded = network.timing, network.plan.folded
    if found is None or folded is None or folded.time is None:
        return None
    return {
        **folded.time.model_dump(),
        "unrolling": list(found.unrolling),
        "readouts": list(found.readouts),
        "smallest_steps": found.smallest,
        "complete_steps": found.complete,
        "holds": {name: list(steps) for name, steps in found.holds.items()},
        "silent_edges": [edge.name for edge in found.silent],
        "unfilled_nodes": [node.name for node in found.unfilled],
        "parameters_folded": count_folded(network.plan),
        "macs_per_step": list(macs_per_step(network.plan)),
    }


def shares(data: dict[str, Any]) -> dict[str, dict[str, int]]:
    """Parameters, MACs and memory of the nodes and of each family of edges."""
    families = {"nodes": data["nodes"]}
    for edge in data["edges"]:
        families.setdefault(edge["family"], []).append(edge)
    return {name: sum_costs(rows) for name, rows in families.items() if name in ("nodes", "skip") or has_cost(rows)}


def has_cost(rows: Iterable[dict[str, Any]]) -> bool:
    """Whether a row has parameters, MACs or memory."""
    return any(sum(sum_costs([row]).values()) for row in rows)


def sum_costs(rows: Iterable[dict[str, Any]]) -> dict[str, int]:
    """The sum of the costs of some rows."""
    rows = list(rows)
    return {key: sum(row[key] for row in rows) for key in ("parameters", "macs", "memory_bytes")}


def _costs(cost: Cost) -> dict[str, int]:
    return {"parameters": cost.parameters, "macs": cost.macs, "memory_bytes": cost.memory_bytes}


def _calls(plan: Plan) -> list[dict[str, Any]]:
    seen: set[str] = set()
    stored = step_memory(plan).by_call
    return [
        {
            "name": call.name,
            "op": call.op.kind,
            "fields": fields(call),
            "inputs": list(call.inputs),
            "shape": list(call.shape),
            "weights": call.weights if call.tensors else None,
            "step": call.step,
            "parameters": _new_parameters(call, seen),
            "macs": call.op.macs(*call.input_shapes),
            "memory_bytes": stored.get(call.name, 0),
            "owner": call.owner,
        }
        for call in plan.calls
    ]


def _new_parameters(call: Call, seen: set[str]) -> int:
    """The number of parameters that no earlier call has."""
    total = 0
    for tensor in call.tensors:
        name = f"{call.weights}.{tensor.name}"
        if tensor.trainable and name not in seen:
            total += tensor.elements
        seen.add(name)
    return total


def fields(call: Call) -> dict[str, Any]:
    """The fields of a call's operation that are not its defaults."""
    return call.op.model_dump(mode="json", exclude_defaults=True)


def format_shape(shape: Iterable[int] | Shape) -> str:
    """A shape as text: `16x32x32`."""
    return "x".join(str(size) for size in shape)


def format_steps(edge: dict[str, Any]) -> str:
    """The steps at which an edge is open; empty if it is at all steps."""
    return "" if edge["at"] is None else format_step_ranges(edge["at"])


def format_factor(edge: dict[str, Any]) -> str:
    """The factor of an edge and its gate: `learned`, `0.5`, `gate attend`; empty for none."""
    return ", ".join(filter(None, (edge["scale"], f"gate {edge['gate']}" if edge["gate"] else None)))
