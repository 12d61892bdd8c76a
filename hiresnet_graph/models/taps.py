"""Values inside a network by name: nodes, stages, projections and single operations, at a time step."""

from __future__ import annotations

import re
from collections.abc import Iterable

from hiresnet_graph.errors import UsageError, did_you_mean
from hiresnet_graph.passes.timing import format_steps
from hiresnet_graph.plan import Plan

_AT_STEP = re.compile(r"(?P<name>.+)@(?P<step>[0-9]+)")


def find_values(plan: Plan, taps: str | Iterable[str]) -> dict[str, str]:
    """Tap -> the name of its value in the plan.

    A tap is a node, a stage (the value of its last block), a projection or a part of a block (`stage2.block1.conv1`).
    In a network with `time`, `V4@3` is the value at step 3, and `V4` that at the last step.

    Raises:
        UsageError: There is no such value, or none at this step.
    """
    found = _NamedValues(plan)
    return {tap: found.find(tap) for tap in ([taps] if isinstance(taps, str) else taps)}


class _NamedValues:
    """The values of a plan by name and step."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.name = plan, plan.name
        self.by_name: dict[str, dict[int | None, str]] = {}
        for call in plan.calls:
            name = call.name.removesuffix(f".step{call.step}")
            self.by_name.setdefault(name, {})[call.step] = call.name
            self.by_name.setdefault(call.owner, {})[call.step] = call.name  # the last one of a projection
        for record in plan.nodes:
            held: dict[int | None, str] = {**dict(record.at_steps)} or {None: record.value}
            self.by_name[record.name] = held
            if record.stage:
                self.by_name[record.stage] = held  # the last block comes last

    def find(self, tap: str) -> str:
        """The value of a tap."""
        match = _AT_STEP.fullmatch(tap)
        name, step = (match["name"], int(match["step"])) if match else (tap, None)
        held = self.by_name.get(name) or self._of_module(name)
        if step is None:
            return list(held.values())[-1]
        if step not in held and (once := self._arriving(name, held, step)):
            return once
        if step not in held:
            steps = tuple(found for found in held if found is not None)
            when = f"it has one at {format_steps(steps)}" if steps else "the network has no time steps"
            raise UsageError(f"'{name}' has no value at step {step}: {when}.")
        return held[step]

    def _arriving(self, name: str, held: dict[int | None, str], step: int) -> str:
        """The value that an edge brings at a step without computing it again, since its source is constant; or none."""
        if all(edge.name != name for edge in self.plan.edges):
            return ""
        read = {value for call in self.plan.calls if call.step == step for value in call.inputs}
        return next((value for value in held.values() if value in read), "")

    def _of_module(self, name: str) -> dict[int | None, str]:
        """The value of a module inside a block, by step: the one that others read of the values inside it."""
        inside = [call for call in self.plan.calls if call.name.startswith(f"{name}.")]
        if not inside:
            raise UsageError(f"'{self.name}' has no node '{name}'. {did_you_mean(name, self.by_name)}")
        own = {call.name for call in inside}
        read = {value for call in self.plan.calls if call.name not in own for value in call.inputs}
        ends = [call for call in inside if call.name in read or call.name in self.plan.outputs.values()]
        held = {call.step: call.name for call in ends}
        if len(held) != len(ends):
            raise UsageError(f"'{name}' has several values. Select one: {', '.join(call.name for call in ends)}.")
        return held
