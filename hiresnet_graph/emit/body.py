"""The two methods of a class: `__init__`, which creates the modules, and `forward`, which calls them.

`forward` is straight-line code. It nests calls whose value is read once, up to three deep, and names variables after
nodes, or `x` if only the next line reads the value. Nesting delays a call; items whose order matters are never delayed
past each other.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass, replace
from functools import partial, reduce
from typing import Any

from hiresnet_graph.emit.forms import (
    NO_DEFAULT,
    ChainedCalls,
    Form,
    FunctionCall,
    Instance,
    Items,
    ModuleTensor,
    Operand,
    Slice,
    Slot,
    Step,
    compact,
    source_name,
)
from hiresnet_graph.emit.text import (
    Brackets,
    Doc,
    Each,
    Labelled,
    Operands,
    Postfix,
    flat,
    in_brackets,
    literal,
    statement,
)
from hiresnet_graph.emit.units import ANY_STEP, Item, Unit, is_copy
from hiresnet_graph.ops import Activation

INDENT = 8
_OPERATORS = {"operator.add": "+", "operator.sub": "-", "operator.mul": "*", "operator.truediv": "/"}
_PRECEDENCE = {"+": 1, "-": 1, "*": 2, "/": 2}
_OF_MODULE_DICT = frozenset({"clear", "items", "keys", "pop", "update", "values"})
STATISTICS = "stats"
"""The module with the running statistics of a norm if only these have copies; no layer has this attribute."""
_DEEPEST = 3
_LARGEST = 8
_LONGEST = 50
_LONGEST_CHAIN = 32


@dataclass(frozen=True, slots=True)
class Script:
    """The content of one class.

    Attributes:
        items: The item of each step of the form.
        arguments: Names of the arguments of `forward`.
        results: Keys of the returned dict; empty for a single value.
        hints: Names for the value of an item, the best first.
        final: Whether the value of an item is that of a node of the spec, which gets a line of its own.
        first: The position of an item in `__init__`.
        sensitive: Whether the order in which an item runs matters.
        slots: The expression of a number in `__init__`, and (True) in `forward`.
        constant: The number in a slot; NO_DEFAULT for a parameter.
        optional: Modules that may be None: then their value is their input.
        timed: `forward` takes the time step as an argument.
        comments: Comments in `forward` mark the time steps.
    """

    form: Form
    items: Sequence[Item]
    arguments: tuple[str, ...]
    results: tuple[str, ...]
    hints: Callable[[Item], list[str]]
    final: Callable[[Item], bool]
    first: Callable[[Item], int]
    sensitive: Callable[[Item], bool]
    slots: Callable[[int, bool], str]
    constant: Callable[[int], Any]
    reserved: frozenset[str]
    optional: frozenset[str] = frozenset()
    timed: bool = False
    comments: bool = False


class ModulePaths:
    """The expressions of the modules of a class: `self.conv1`, `self.stage1["block1"]`."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self.modules = {step.path for step in steps if step.path}
        self._children: dict[str, set[str]] = {}
        for path in self.modules:
            while path:
                parent, _, name = path.rpartition(".")
                self._children.setdefault(parent, set()).add(name)
                path = parent
        self._read: dict[str, str] = {"": "self"}

    def _is_dict(self, path: str) -> bool:
        return bool(path) and path not in self.modules and not _OF_MODULE_DICT & self._children.get(path, set())

    def holds(self, path: str, names: Set[str]) -> bool:
        """Whether a path is no layer, and has exactly these modules below it."""
        return path not in self.modules and self._children[path] == names

    def read(self, path: str) -> str:
        """The expression of a module."""
        if path not in self._read:
            parent, _, name = path.rpartition(".")
            before = self.read(parent)
            if name == ANY_STEP:
                self._read[path] = f'{before}[f"step{{step}}"]'
            elif self._is_dict(parent):
                self._read[path] = f"{before}[{literal(name)}]"
            elif _is_plain(name) and (not parent or name == STATISTICS):
                self._read[path] = f"{before}.{name}"
            else:
                self._read[path] = f"{before}.get_submodule({literal(name)})"
        return self._read[path]

    def assign(self, path: str, value: Doc) -> list[str]:
        """The lines that assign a module."""
        parent, _, name = path.rpartition(".")
        if self._is_dict(parent) or (_is_plain(name) and (not parent or name == STATISTICS)):
            return statement(f"{self.read(path)} = ", value, INDENT)
        return statement("", Brackets(f"{self.read(parent)}.add_module", (literal(name), value)), INDENT)

    def containers(self, path: str) -> Iterator[tuple[str, Doc]]:
        """The containers of a module, the outermost first, each with the expression that creates it."""
        end = path.find(".")
        while end > 0:
            outer = path[:end]
            if outer not in self.modules:
                yield outer, Brackets("nn.ModuleDict" if self._is_dict(outer) else "nn.Module", ())
            end = path.find(".", end + 1)


def _is_plain(name: str) -> bool:
    return name.isidentifier() and not keyword.iskeyword(name)


@dataclass(frozen=True, slots=True)
class _SoFar:
    """The value of the previous statements of a long chain, by its name."""

    name: str


@dataclass(frozen=True, slots=True)
class _LayerDict:
    """Equal layers of several time steps, written as one dict: an expression of their steps, and their names."""

    steps: str
    names: frozenset[str]


class Body:
    """The lines of the methods of a class."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.paths = ModulePaths(script.form.steps)
        time = ("step",) if script.timed else ()
        self._taken = frozenset({"F", "Tensor", "nn", "self", "torch", *time, *script.reserved})

    def parts(self, external: Callable[[str], Doc]) -> list[str]:
        """The lines of `__init__` that create the modules; `external` gives those that are passed in."""
        lines: list[str] = []
        created: set[str] = set()
        steps = self.script.form.steps
        first: dict[str, int] = {}
        for step, item in zip(steps, self.script.items, strict=True):
            path = step.path
            while path:
                first[path] = min(first.get(path, self.script.first(item)), self.script.first(item))
                path = path.rpartition(".")[0]
        order = [k for k, step in enumerate(steps) if step.path]
        order.sort(key=lambda k: (first[steps[k].path], len(steps[k].path)))
        rows = self._rows()
        for step in (steps[k] for k in order):
            parent, _, name = step.path.rpartition(".")
            row = rows.get(parent)
            row = row if row is not None and name in row.names else None
            is_dict = row is not None and self.paths.holds(parent, row.names)
            path = parent if is_dict else step.path
            if path in created:
                continue
            for container, doc in self.paths.containers(path):
                if container not in created:
                    created.add(container)
                    lines += self.paths.assign(container, doc)
            created.add(path)
            part = external(step.path) if step.make is None else self._new(step.make)
            if row is None:
                lines += self.paths.assign(step.path, part)
            elif is_dict:
                lines += self.paths.assign(parent, Brackets("nn.ModuleDict", (_each(row.steps, part),)))
            else:
                update = Brackets(f"{self.paths.read(parent)}.update", (_each(row.steps, part),))
                lines += statement("", update, INDENT)
        return lines

    def _rows(self) -> dict[str, _LayerDict]:
        """Equal layers for several time steps, by the path of their parent."""
        rows: dict[str, _LayerDict] = {}
        found: dict[str, list[Step]] = {}
        for step, item in zip(self.script.form.steps, self.script.items, strict=True):
            parent = step.path.rpartition(".")[0]
            if step.copies is not None:
                rows[parent] = _LayerDict(self._plain(step.copies, stored=False), frozenset({ANY_STEP}))
            elif step.path and is_copy(item.weights):
                found.setdefault(parent, []).append(step)
        for parent, steps in found.items():
            names = dict.fromkeys(step.path.rpartition(".")[2] for step in steps)
            are_equal = len({self._new(step.make) for step in steps if step.make is not None}) == 1
            if len(names) > 1 and are_equal and self.paths.holds(parent, names.keys()):
                times = compact(tuple(int(name.removeprefix("step")) for name in names))
                rows[parent] = _LayerDict(literal(times), frozenset(names))
        return rows

    def _new(self, new: Instance) -> Doc:
        args: list[Doc] = []
        for parameter, value in zip(new.target.parameters, new.values, strict=True):
            default = self.script.constant(value.index) if isinstance(value, Slot) else value
            if default is not NO_DEFAULT and parameter.default is not NO_DEFAULT and default == parameter.default:
                continue
            doc = self._new(value) if isinstance(value, Instance) else self._plain(value, stored=False)
            args.append(doc if parameter.positional else Labelled(f"{parameter.name}=", doc))
        return Brackets(new.target.name, tuple(args))

    def _plain(self, value: Any, *, stored: bool) -> str:
        """A number or another constant; `stored` for `forward`, which reads parameters from `self`."""
        return self.script.slots(value.index, stored) if isinstance(value, Slot) else literal(value)

    def forward(self) -> list[str]:
        """The lines of `forward`."""
        script, form = self.script, self.script.form
        roots = self._roots()
        lines_of = [i for i in range(len(form.steps)) if i in roots]
        reads: list[list[int]] = [self._reads(i, roots) for i in lines_of]
        line_of = {i: k for k, i in enumerate(lines_of)}
        last: dict[int, int] = {}
        for k, values in enumerate(reads):
            for value in values:
                last[value] = k
        returned = self._returned()
        results = set(form.results)
        last |= dict.fromkeys(results, len(lines_of))
        names: dict[int, str] = dict(enumerate(script.arguments))
        current: dict[str, int] = {name: value for value, name in names.items()}
        lines: list[str] = []
        outputs: list[Doc] = []
        current_step: int | None = None
        for i in lines_of:
            if script.comments and (then := script.items[i].step) not in (None, current_step):
                current_step = then
                lines.append(f"{' ' * INDENT}# step {current_step}")
            k, value = line_of[i], form.inputs + i
            is_long = _is_long(form.steps[i].use)
            # The first statement of a long chain must not overwrite what a later one reads.
            is_brief = value not in results and last.get(value, k) <= k + 1
            is_brief = is_brief and form.steps[i].path not in script.optional
            free = iter(self._names(script.items[i], is_brief))
            name = next(name for name in free if name not in current or last.get(current[name], -1) <= k - is_long)
            docs = self._expressions(i, roots, names, name)
            if i == returned:
                outputs.append(docs.pop())
            else:
                current[name], names[value] = value, name
            for doc in docs:
                lines += statement(f"{name} = ", doc, INDENT)
        outputs += [names[value] for value in form.results if value in names]
        if script.results:
            pairs = zip(script.results, outputs, strict=True)
            entries = tuple(Labelled(f"{literal(key)}: ", result) for key, result in pairs)
            return [*lines, *statement("return ", Brackets("", entries, "{}"), INDENT)]
        return [*lines, *statement("return ", outputs[0], INDENT)]

    def _returned(self) -> int | None:
        """The step that becomes the `return` expression: the last, if its value is the only result."""
        form = self.script.form
        if not form.steps or self.script.results or form.results != (form.inputs + len(form.steps) - 1,):
            return None
        return len(form.steps) - 1

    def _names(self, item: Item, brief: bool) -> Iterator[str]:
        """Names for a value, without end; `brief` if only the next line reads it."""
        hints = self.script.hints(item)
        for name in ["x", *hints] if brief else hints:
            yield self._legal(name)
        number = 1
        while True:
            number += 1
            yield self._legal(f"{hints[-1]}{number}")

    def _legal(self, name: str) -> str:
        if not name.isidentifier():
            name = f"v{name}"
        reserved = keyword.iskeyword(name) or name in self._taken
        return f"{name}_" if reserved else name

    def _roots(self) -> set[int]:
        """The steps with a line of their own."""
        form, items = self.script.form, self.script.items
        readers: list[list[int]] = [[] for _ in form.steps]
        for i, step in enumerate(form.steps):
            for value in step.operands:
                if value >= form.inputs:
                    readers[value - form.inputs].append(i)
        results = {value - form.inputs for value in form.results}
        depth = [0] * len(form.steps)
        size = [1] * len(form.steps)
        roots: set[int] = set()
        delayed: int | None = None
        for i, step in enumerate(form.steps):
            nested = [value - form.inputs for value in step.operands if value >= form.inputs]
            nested = [k for k in nested if k not in roots]
            sensitive = self.script.sensitive(items[i])
            if delayed is not None and sensitive and delayed not in nested:
                roots.add(delayed)
                delayed = None
            if delayed in nested or sensitive:
                delayed = i
            inner = max((depth[k] for k in nested if k not in roots), default=0)
            depth[i] = inner + (0 if _is_operator(step) else 1)
            size[i] += sum(size[k] for k in nested if k not in roots)
            is_short = len(readers[i]) == 1 and i not in results and size[i] < _LARGEST and not _is_long(step.use)
            is_short = is_short and step.path not in self.script.optional
            if not is_short or not self._nests(i, readers[i][0], depth[i]):
                roots.add(i)
                if delayed == i:
                    delayed = None
        return roots

    def _nests(self, i: int, reader: int, depth: int) -> bool:
        """Whether a call is readable inside the call that reads its value."""
        item, target = self.script.items[i], self.script.items[reader]
        if self.script.final(item) and item.step != target.step:
            return False
        if _is_merge(target):
            is_long = len(self.paths.read(self.script.form.steps[i].path)) > _LONGEST
            return depth <= 1 and not (is_long and len(target.inputs) == 2)
        if self.script.final(item) or (not isinstance(item, Unit) and isinstance(item.op, Activation)):
            return False
        return depth < _DEEPEST

    def _reads(self, i: int, roots: set[int]) -> list[int]:
        """The named values that the expression of a step reads."""
        found, todo = [], [i]
        while todo:
            for value in self.script.form.steps[todo.pop()].operands:
                inner = value - self.script.form.inputs
                if inner >= 0 and inner not in roots:
                    todo.append(inner)
                else:
                    found.append(value)
        return found

    def _expressions(self, i: int, roots: set[int], names: dict[int, str], name: str = "") -> list[Doc]:
        """The expression of a step; for a long chain, those of several statements that assign to one name."""
        step, start = self.script.form.steps[i], self.script.form.inputs
        operands: list[Doc] = []
        for value in step.operands:
            is_named = value < start or value - start in roots
            operands += [names[value]] if is_named else self._expressions(value - start, roots, names)
        if step.path:
            time = [Labelled("" if step.time == "step" else "step=", step.time)] if step.time else []
            module = self.paths.read(step.path)
            called = Brackets(module, (*operands, *time))
            if step.path in self.script.optional:
                return [Labelled(f"{flat(in_brackets(operands[0]))} if {module} is None else ", called)]
            return [called]
        return [self._used(tree, operands) for tree in _pieces(step.use, name)]

    def _used(self, tree: Any, operands: list[Doc]) -> Doc:
        match tree:
            case Operand(index):
                return operands[index]
            case _SoFar(name):
                return name
            case ModuleTensor(path, name):
                return f"{self.paths.read(path)}.{name}"
            case Items(items, is_list):
                return Brackets("", tuple(self._used(item, operands) for item in items), "[]" if is_list else "()")
            case FunctionCall("operator.pos", (value,)):
                return self._used(value, operands)
            case FunctionCall("operator.getitem", (value, index)):
                return Postfix(self._used(value, operands), f"[{self._index(index)}]")
            case FunctionCall(target, (left, right)) if target in _OPERATORS:
                return _joined(_OPERATORS[target], self._used(left, operands), self._used(right, operands))
            case ChainedCalls(target, args):
                return reduce(partial(_combined, target), (self._used(arg, operands) for arg in args))
            case FunctionCall(target, args, kwargs, signature):
                docs = [self._used(arg, operands) for arg in args]
                if target.startswith("."):
                    head, docs = f"{flat(in_brackets(docs[0]))}{target}", docs[1:]
                else:
                    head = source_name(target)
                for name, value in kwargs:
                    constant = self.script.constant(value.index) if isinstance(value, Slot) else value
                    if constant is NO_DEFAULT or constant != signature.keywords.get(name, NO_DEFAULT):
                        docs.append(Labelled(f"{name}=", self._used(value, operands)))
                return Brackets(head, tuple(docs))
        return self._plain(tree, stored=True)

    def _index(self, tree: Any) -> str:
        """The expression inside the brackets of an index."""
        match tree:
            case Items(items, False):
                return ", ".join(self._index(item) for item in items)
            case Slice(start, stop, step):
                text = ":".join("" if end is None else self._plain(end, stored=True) for end in (start, stop))
                return text if step is None else f"{text}:{self._plain(step, stored=True)}"
        return self._plain(tree, stored=True)


def _each(steps: str, layer: Doc) -> Doc:
    """A dict with one layer for each of some time steps."""
    if single := re.fullmatch(r"\((\d+),\)", steps):
        return Brackets("", (Labelled(f'"step{single[1]}": ', layer),), "{}")
    return Each('f"step{t}"', layer, f"for t in {steps}")


def _is_operator(step: Step) -> bool:
    return isinstance(step.use, FunctionCall | ChainedCalls) and (
        step.use.target in _OPERATORS or step.use.target == "operator.getitem"
    )


def _chain(tree: Any) -> ChainedCalls | None:
    """The chain that a function call is, or that is its first argument, as in a mean."""
    chain = tree.args[0] if isinstance(tree, FunctionCall) and tree.args else tree
    return chain if isinstance(chain, ChainedCalls) else None


def _is_long(tree: Any) -> bool:
    chain = _chain(tree)
    return chain is not None and len(chain.args) > _LONGEST_CHAIN


def _pieces(tree: Any, name: str) -> list[Any]:
    """The parts of a long chain, in the order of computation; each begins with the value of the previous one.

    A single expression of hundreds of operands exceeds the recursion limit of Python's compiler.
    """
    chain = _chain(tree)
    if chain is None or not _is_long(tree):
        return [tree]
    pieces = [ChainedCalls(chain.target, chain.args[:_LONGEST_CHAIN])]
    for start in range(_LONGEST_CHAIN, len(chain.args), _LONGEST_CHAIN - 1):
        pieces.append(ChainedCalls(chain.target, (_SoFar(name), *chain.args[start : start + _LONGEST_CHAIN - 1])))
    if tree is not chain:
        pieces[-1:] = [replace(tree, args=(pieces[-1], *tree.args[1:]))]
    return pieces


def _is_merge(item: Item) -> bool:
    return not isinstance(item, Unit) and item.op.arity is None


def _combined(target: str, left: Doc, right: Doc) -> Doc:
    """A function of two values, or an operator."""
    if target in _OPERATORS:
        return _joined(_OPERATORS[target], left, right)
    return Brackets(source_name(target), (left, right))


def _joined(operator: str, left: Doc, right: Doc) -> Doc:
    """Two operands, in brackets where the order of evaluation requires them."""
    rank = _PRECEDENCE[operator]
    if isinstance(right, Operands):
        right = in_brackets(right)
    if isinstance(left, Operands):
        if left.operator == operator:
            return Operands(operator, (*left.operands, right))
        if _PRECEDENCE[left.operator] <= rank:
            left = in_brackets(left)
        else:
            return Operands(operator, (flat(left), right))
    return Operands(operator, (left, right))
