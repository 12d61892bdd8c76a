"""Names and addresses: the nodes and blocks that a name, a pattern or a keyword of a spec refers to."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from hiresnet_graph.errors import ExpressionError, did_you_mean
from hiresnet_graph.spec.pattern import matches

NAME = re.compile(r"[A-Za-z0-9_]+\Z")
_MAX_HINTS = 100
_COPY = re.compile(r"step\d+")
RESERVED = frozenset({"input", "edges", "stages", "blocks"})
# fmt: off
_MODULE_WORDS = frozenset(
    {
        "T_destination", "add_module", "add_submodule", "apply", "at", "bfloat16", "buffers", "call_super_init",
        "checkpointed", "children", "code", "compile", "cpu", "cuda", "delete_all_unused_submodules",
        "delete_submodule", "double", "dump_patches", "eval", "extra_repr", "float", "forward", "get_buffer",
        "get_extra_state", "get_parameter", "get_submodule", "graph", "half", "ipu", "load_state_dict", "meta",
        "modules", "mtia", "named_buffers", "named_children", "named_modules", "named_parameters", "parameters",
        "print_readable", "readouts", "recompile", "register_backward_hook", "register_buffer", "register_forward_hook",
        "register_forward_pre_hook", "register_full_backward_hook", "register_full_backward_pre_hook",
        "register_load_state_dict_post_hook", "register_load_state_dict_pre_hook", "register_module",
        "register_parameter", "register_state_dict_post_hook", "register_state_dict_pre_hook", "requires_grad_",
        "set_extra_state", "set_submodule", "shape_env", "share_memory", "state_dict", "step", "to", "to_empty",
        "to_folder", "train", "training", "type", "xpu", "zero_grad"
    }
)
# fmt: on
"""Attributes of torch modules, so that no node can have such a name (a test compares them with torch)."""


def name_fault(name: str) -> str:
    """Why this cannot be the name of a node, an edge or weights, as a message; empty if it can."""
    if not NAME.match(name) or "__" in name or not name[0].isalpha() or not name.isascii():
        return f"'{name}' is not a valid name: use letters, digits and '_', with a letter first and without '__'."
    if name in RESERVED:
        return f"the name '{name}' is reserved."
    if _COPY.fullmatch(name):
        return f"the name '{name}' is reserved: it is that of a copy of weights for a time step."
    if keyword.iskeyword(name):
        return f"the name '{name}' is taken: it is a keyword of Python."
    if name in _MODULE_WORDS or name == "self":
        return f"the name '{name}' is taken: it is an attribute of every PyTorch module."
    return ""


@dataclass(frozen=True, slots=True)
class End:
    """One end of an edge.

    Attributes:
        call: The node of the graph.
        label: Its name in the spec: the stage, if the call is its last block (or its first, for a target).
        part: The part inside the block whose output is read; empty for the output of the block.
    """

    call: str
    label: str
    part: str = ""


class Addresses:
    """The names of one section.

    Args:
        inputs: Names of the inputs.
        calls: Names of the calls, in the order of the spec, without the inputs.
        stages: Stage -> its calls.
    """

    def __init__(self, inputs: Sequence[str], calls: Sequence[str], stages: Mapping[str, Sequence[str]]) -> None:
        self.inputs = tuple(inputs)
        self.calls = dict.fromkeys(calls)
        self.stages = {stage: tuple(members) for stage, members in stages.items()}
        self._last = {members[-1]: stage for stage, members in self.stages.items()}
        self._first = {members[0]: stage for stage, members in self.stages.items()}
        self._hints: dict[str, str] = {}

    def __iter__(self) -> Iterator[str]:
        """Every name that an edge may use."""
        yield from self.inputs
        yield from self.stages
        yield from self.calls

    def _unknown(self, address: str) -> ExpressionError:
        # A search among 10,000 names is slow: it is done once for each word, and only for the first words.
        if address not in self._hints:
            self._hints[address] = did_you_mean(address, self) if len(self._hints) < _MAX_HINTS else ""
            if re.fullmatch(r"x\d+", address):
                numbered = "x0, x1, ... are the levels in the paper; a spec uses the names of nodes."
                self._hints[address] = f"{numbered} {self._hints[address]}"
        return ExpressionError(f"there is no node '{address}'.", 0, self._hints[address])

    def sources(self, address: str) -> list[End]:
        """The ends that an address refers to as a source.

        Raises:
            ExpressionError: There is none.
        """
        if address in self.stages:
            return [End(self.stages[address][-1], address)]
        if address in self.inputs:
            return [End(address, address)]
        if address in self.calls:
            return [End(address, self._last.get(address, address))]
        if "*" in address:
            found = [self.sources(name)[0] for name in self if matches(address, name)]
            if not found:
                raise ExpressionError(f"the pattern '{address}' matches no node.", 0, f"Known: {', '.join(self)}.")
            return found
        parts = address.split(".")
        for cut in range(len(parts) - 1, 0, -1):
            call = ".".join(parts[:cut])
            if call in self.calls:
                return [End(call, address, ".".join(parts[cut:]))]
        raise self._unknown(address)

    def targets(self, address: str, slot: str) -> list[End]:
        """The ends that an address refers to as a target: the first block of a stage for `input`, else the last.

        Raises:
            ExpressionError: There is none.
        """
        labels = self._first if slot == "input" else self._last
        if address in self.stages:
            return [End(self.stages[address][0 if slot == "input" else -1], address)]
        if address in self.calls:
            return [End(address, labels.get(address, address))]
        if address in self.inputs:
            raise ExpressionError(f"'{address}' is an input; no edge may end there.")
        if "*" in address:
            found = [self.targets(name, slot)[0] for name in self if name not in self.inputs and matches(address, name)]
            if not found:
                raise ExpressionError(f"the pattern '{address}' matches no node.", 0, f"Known: {', '.join(self)}.")
            return found
        if any(address.startswith(f"{call}.") for call in self.calls):
            raise ExpressionError(
                f"'{address}' is inside a block, where no edge may end.", 0, "End it at a slot of the block."
            )
        raise self._unknown(address)

    def levels(self, items: Sequence[str]) -> list[str]:
        """The addresses that names, keywords and patterns of levels select.

        Raises:
            ExpressionError: An item selects nothing; `offset` is the index of the item.
        """
        found: list[str] = []
        for index, item in enumerate(items):
            if item == "stages":
                selected = list(self.stages)
            elif item == "blocks":
                selected = [call for members in self.stages.values() for call in members]
            elif "*" in item:
                selected = [name for name in self if name not in self.inputs and matches(item, name)]
            elif item in self.stages or item in self.calls or item in self.inputs:
                selected = [item]
            else:
                error = self._unknown(item)
                raise ExpressionError(error.message, index, error.hint)
            if not selected:
                raise ExpressionError(f"'{item}' selects no node.", index, "Give a node its 'depth' to make a stage.")
            found += selected
        return found
