"""A network: its spec, and the verbs that count, build, write and draw it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hiresnet_graph.cost import Cost, count
from hiresnet_graph.errors import Position, Problem, Source, SpecError, UsageError
from hiresnet_graph.files import is_file
from hiresnet_graph.gc_pause import gc_paused
from hiresnet_graph.graph import BlockGraph
from hiresnet_graph.passes import Original, desugar, resolve
from hiresnet_graph.passes.timing import Timing, timing, warnings
from hiresnet_graph.plan import Plan, make_plan, remarks
from hiresnet_graph.spec.change import Change, extension_change, variant_change
from hiresnet_graph.spec.document import Document, parse_document, read_document
from hiresnet_graph.spec.marked import MarkedDict

if TYPE_CHECKING:
    import graphviz
    import networkx as nx
    from torch import nn

    from hiresnet_graph.interop.export import Dynamic
    from hiresnet_graph.render import Direction, Level, ThemeName


@dataclass(frozen=True, eq=False, repr=False)
class Architecture(Document):
    """A spec with its verbs. Immutable: `variant`, `override` and `with_edges` return new ones."""

    @property
    def title(self) -> str:
        """The name, the selected variant, and the overrides (their number, if there are more than three)."""
        changes = [f"{key.replace('skips.edges', 'edges')}={value}" for key, value, *_ in self.overrides]
        shown = changes if len(changes) <= 3 else [f"{len(changes)} changes"]
        return ", ".join([self.name, *([self.chosen] if self.chosen else []), *shown])

    def __repr__(self) -> str:
        return f"<Architecture {self.title}>"

    @cached_property
    def graph(self) -> BlockGraph:
        """The graph of block calls.

        Raises:
            SpecError: The spec is wrong; it lists all errors found.
        """
        with self._naming_the_change():
            with gc_paused():
                section, problems = self.section()
                graph = desugar(section, problems, self._original)
            problems.raise_if_any()
        assert graph is not None
        return graph

    @property
    def _original(self) -> Original | None:
        """The nodes and outputs before the changes; None without changes, or if the spec is wrong without them."""
        return self.base._as_original if isinstance(self.base, Architecture) else None

    @cached_property
    def _as_original(self) -> Original | None:
        try:
            return Original.of(self.graph, self.tree["nodes"])
        except SpecError:
            return None

    def standalone(self) -> MarkedDict:
        """The tree of a file of its own for the same network: patches applied, templates kept.

        It names the outputs and prunes dead nodes where the spec before its changes determines what is left out.
        """
        tree = self.patched()
        if self._original is None or _structure(Architecture(tree)) == _structure(self):
            return tree
        tree = tree.copy()
        tree |= {"outputs": list(self.graph.outputs), "prune": "dead"}
        return tree

    @cached_property
    def plan(self) -> Plan:
        """The primitive calls, in order.

        Raises:
            SpecError: The spec is wrong, or shapes do not match.
        """
        graph = self.graph
        with self._naming_the_change(), gc_paused():
            return make_plan(resolve(graph))

    @contextmanager
    def _naming_the_change(self) -> Iterator[None]:
        """Errors that only a variant has, or a spec that extends another, name it where they are found elsewhere."""
        try:
            yield
        except SpecError as error:
            if self.overrides:
                raise  # whoever typed them sees them
            found = error.problems
            for change, without in self._changes():
                # Numbers in messages may differ: the same place is wrong without the change, too.
                known = {(problem.position, problem.path): problem.related for problem in without.problems}
                found = tuple(
                    replace(problem, related=problem.related or known[at])
                    if (at := (problem.position, problem.path)) in known
                    else change.name(problem)
                    for problem in found
                )
            raise SpecError(found, error.omitted) from None

    def _changes(self) -> Iterator[tuple[Change, Architecture]]:
        """The changes by the variant and by the file, each with the network without it."""
        file = self.variant(None)
        if self.chosen is not None:
            yield variant_change(file, self.chosen), file
        if isinstance(file.base, Architecture):
            has_variant = self.chosen in file.base.variants
            yield extension_change(file, file.base), file.base.variant(self.chosen if has_variant else None)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The errors of the network itself, without its variants; none if it can be compiled."""
        try:
            _ = self.plan
        except SpecError as error:
            return error.problems
        return ()

    @property
    def _has_time(self) -> bool:
        """Whether the network, or an entry of its `blocks`, has `time`."""
        tree = self.patched()
        return any("time" in entry for entry in (tree, *tree.get("blocks", {}).values()))

    @property
    def timing(self) -> Timing | None:
        """The steps at which nodes hold values; None for a network without `time`."""
        return None if self.plan.folded is None else timing(self.plan.folded)

    @cached_property
    def warnings(self) -> tuple[Problem, ...]:
        """What is allowed but probably unintended.

        A merge that gives more edges a learned factor than the entry names; default padding of patches, and norms of
        few values; names of weights with one user; edges that reach no readout; states that are never filled.
        """
        in_time = () if self.plan.folded is None else warnings(self.plan.folded)
        return self.graph.warnings + remarks(self.plan) + in_time

    def cost(self) -> Cost:
        """Parameters, multiply-adds and memory."""
        return count(self.plan)

    def build(self, seed: int = 0) -> nn.Module:
        """The network as a `torch.fx.GraphModule`.

        Args:
            seed: Random seed of the initial weights. Each weight depends only on the seed and its name, so that it is
                the same in every variant. The global random state is neither read nor changed.
        """
        from hiresnet_graph.lower import build

        with gc_paused():
            module = build(self.plan, seed)
        if self._has_time:  # its unrolled code has no steps
            module.meta["spec"] = self.to_json()
        return module

    def build_inference(self, trained: nn.Module) -> nn.Module:
        """A module for inference with the outputs of a trained one, up to rounding, in fewer operations.

        Norms with running statistics, and factors of edges, are folded into the convolutions before them; convolutions
        that meet in a sum, like the projections of several skips, are joined.

        Args:
            trained: A module of this network, as from `build`; it is not changed.
        """
        from hiresnet_graph.lower.inference import inference_form

        return inference_form(self.plan).build(trained)

    def source(self) -> str:
        """The network as Python source that imports torch alone."""
        from hiresnet_graph.emit import emit

        return emit(self.plan)

    def export(
        self,
        path: str | Path,
        *,
        seed: int = 0,
        weights: str | Path | None = None,
        reinit: bool = False,
        dynamic: Dynamic = "batch",
        inference: bool = False,
        message: Callable[[str], None] = lambda text: None,
    ) -> Path:
        """Write the network to a file, in the format given by its suffix: `.py`, `.pt2`, `.onnx` or `.json` (the plan).

        Args:
            weights: Replace the initial ones: a safetensors file, a file of `torch.save` with tensors alone, or the
                folder of a run.
            reinit: Tensors that do not fit keep their initial values.
            dynamic: What may vary in `.pt2` and `.onnx` files: the batch size, or also height and width (`hw`).
            inference: Write the inference form, as of `build_inference`.
            message: Called with what the user should know about weights, sizes and the inference form.
        """
        from hiresnet_graph.interop import export

        return export(
            self.plan,
            path,
            seed=seed,
            weights=weights,
            specs=self.files,
            reinit=reinit,
            dynamic=dynamic,
            inference=inference,
            message=message,
        )

    def render(
        self,
        path: str | Path,
        *,
        level: Level = "blocks",
        direction: Direction = "LR",
        unrolled: bool = False,
        width: str | float = "",
        font: str = "",
        counts: bool = True,
        footer: bool = True,
        theme: ThemeName = "light",
    ) -> Path:
        """Draw the network to a file, in the format given by its suffix, as in `render.FORMATS`.

        Args:
            level: One box per stage (`stages`), block (`blocks`) or operation (`ops`).
            unrolled: Draw each step of a network with `time`.
            width: `single` or `double` for the columns of a journal page, or centimetres (default: the natural size).
            font: A font family that the reader's machine has (default: Helvetica or Arial).
            counts: Whether there are numbers of parameters and multiply-adds.
            footer: Whether there is a caption.
            theme: `light` or `dark`.
        """
        from hiresnet_graph.render import RenderOptions, render

        options = RenderOptions(level, direction, unrolled, str(width), font, counts, footer, theme)
        return render(self.plan, path, options, title=self.title)

    def to_graphviz(self, *, level: Level = "blocks", direction: Direction = "LR") -> graphviz.Digraph:
        """The network as a graph of the package graphviz: to be changed, or drawn by an installed Graphviz."""
        from hiresnet_graph.render import RenderOptions, to_graphviz

        return to_graphviz(self.plan, RenderOptions(level, direction), title=self.title)

    def to_networkx(self, *, shortcuts: bool = False) -> nx.MultiDiGraph[str]:
        """The nodes and edges of the network with plain attributes; see `hiresnet_graph.interop.to_networkx`."""
        from hiresnet_graph.interop import to_networkx

        return to_networkx(self.plan, shortcuts=shortcuts)

    def _repr_svg_(self) -> str:
        """The picture of the network in a notebook."""
        from hiresnet_graph.render import RenderOptions, to_svg

        return to_svg(self.plan, RenderOptions(level="stages"), title=self.title)

    def validate(self, progress: Callable[[int, int, str], object] | None = None) -> tuple[Problem, ...]:
        """The warnings of the spec and of its variants, each once; one of a variant alone names the variant.

        Variants that are equal after their patches are compiled once.

        Args:
            progress: Called before each network, with its index, the number of networks, and the variant.

        Raises:
            SpecError: The spec or a variant is wrong; with all errors.
        """
        names = (self.chosen,) if self.chosen is not None else (None, *self.variants)
        compiled: set[str] = set()
        problems: dict[tuple[str, str], Problem] = {}
        found: dict[tuple[str, str], Problem] = {}
        omitted = 0
        for index, name in enumerate(names):
            network = self if name == self.chosen else self.variant(name)
            try:
                resolved = repr(network.patched())
                if resolved in compiled:
                    continue
                compiled.add(resolved)
                if progress is not None:
                    progress(index, len(names), name or self.name)
                for problem in network.warnings:
                    own = "" if network is self else f"in the variant '{name}', "
                    located = replace(problem, message=f"{own}{problem.message}")
                    found.setdefault((str(problem.position or problem.path), problem.message), located)
            except SpecError as error:
                omitted = max(omitted, error.omitted)
                for problem in error.problems:
                    problems.setdefault((str(problem.position or problem.path), problem.message), problem)
        if problems:
            raise SpecError(problems.values(), omitted)
        return tuple(found.values())


def _structure(network: Architecture) -> tuple[frozenset[str], dict[str, str]] | None:
    """The nodes and the outputs of a network; None if its spec is wrong."""
    try:
        return frozenset(node.name for node in network.graph.nodes), network.graph.outputs
    except SpecError:
        return None


def split_variant(spec: str) -> tuple[str, str | None]:
    """A spec, and the variant after its `@`, if there is one.

    Raises:
        UsageError: There is nothing on one side of the `@`.
    """
    name, at, variant = spec.rpartition("@")
    if not at or is_file(spec):
        return spec, None
    if not name or not variant:
        raise UsageError(f"'{spec}' has nothing on one side of '@'. Write 'SPEC@VARIANT', like 'hiresnet18@full'.")
    return name, variant


def load(spec: str | Path) -> Architecture:
    """The network of a spec file, or of a shipped spec by its name.

    Raises:
        SpecError: The file cannot be found or read. Its content is checked on first use, or by `validate`.
    """
    return _architecture(read_document(spec))


def loads(text: str, name: str = "text") -> Architecture:
    """The network of a spec in YAML or JSON."""
    return _architecture(parse_document(text, name))


def _architecture(document: Document) -> Architecture:
    """A document that was read, with its verbs."""
    base = None if document.base is None else _architecture(document.base)
    return Architecture(document.tree, files=document.files, base=base)


def from_dict(data: dict[str, Any]) -> Architecture:
    """The network of a spec as plain data.

    Raises:
        SpecError: The spec is wrong, or holds what a file cannot, such as a key that is no text or an infinite number.
    """
    from hiresnet_graph.spec.writer import to_json

    try:
        text = to_json(data)
    except (TypeError, ValueError) as error:
        raise SpecError([Problem(f"{error}.", Position(Source("dict", ""), 1, 1))]) from None
    return loads(text, "dict")


def from_networkx(
    graph: nx.DiGraph[Any],
    *,
    input: Mapping[str, int],
    name: str = "graph",
    default: Mapping[str, Any] | None = None,
    edge_default: Mapping[str, Any] | None = None,
    head: Mapping[str, Any] | None = None,
    attributes: Mapping[str, str] | None = None,
    rename: bool = False,
    steps: int | None = None,
) -> Architecture:
    """The network of a directed graph.

    The attributes of a node are `block` and its fields; those of an edge are the fields of an entry of `edges:`
    (`slot`, `merge`, `projection`, ...). A node without predecessors reads the input, and so do the successors of a
    node called `input`, which is the input itself. Names that are numbers are prefixed with `n`. Of two parallel
    edges, one needs a `name`.

    Args:
        input: Channels, height and width.
        default: Attributes of nodes that lack them, like `{"block": "conv", "width": 16}`.
        edge_default: Attributes of edges that lack them, like `{"projection": {}}`.
        head: Attributes of an additional node `head` that merges all nodes without successors.
        attributes: Attributes of nodes and edges -> the fields that they stand for, as of graphs from other programs.
            All others are left out: with `{}`, only the edges of the graph are read.
        rename: Replace what a spec cannot have in a name by `_`, and number names that are taken.
        steps: The network runs in time for this many steps: an edge that closes a cycle gets a `delay` of one step,
            if it has no `delay`.

    Raises:
        UsageError: The graph is undirected or empty, or has a cycle but no `steps`.
        SpecError: The attributes of a node or an edge are wrong.
    """
    from hiresnet_graph.interop import spec_from_networkx

    return from_dict(
        spec_from_networkx(
            graph,
            input=input,
            name=name,
            default=default,
            edge_default=edge_default,
            head=head,
            attributes=attributes,
            rename=rename,
            steps=steps,
        )
    )
