"""What the parts of desugaring share: the section, its problems, and addresses in it."""

from __future__ import annotations

from hiresnet_graph.graph import Origin
from hiresnet_graph.passes.names import name_fault
from hiresnet_graph.spec.marked import format_path
from hiresnet_graph.spec.problems import Path, Problems
from hiresnet_graph.spec.scalar import looks_typed
from hiresnet_graph.spec.section import Section


class SectionContext:
    """A section and the problems found in it."""

    def __init__(self, section: Section, problems: Problems) -> None:
        self.section = section
        self.problems = problems

    def path(self, *parts: str | int) -> Path:
        """The address of an entry of the section."""
        return (*self.section.path, *parts)

    def origin(self, path: Path) -> Origin:
        """The entry with this address, as the cause of a node or an edge."""
        return Origin(format_path(path), self.problems.position(path))

    def check_name(self, name: str, path: Path, *, key: bool = True) -> bool:
        """Whether this is a valid name; if not, that is a problem of the key, or of the value, at the path."""
        fault = name_fault(name)
        if fault:
            self.problems.add(path, fault, "Choose another name.", key=key)
        return not fault

    def check_weights(self, name: str, path: Path) -> bool:
        """Whether this can name shared weights; if not, that is a problem of the value at the path."""
        if looks_typed(name):
            hint = "Leave out 'weights', or write 'weights: null', for weights of its own; or choose another name."
            self.problems.add(path, f"'{name}' would be the name of weights that are shared.", hint)
            return False
        return self.check_name(name, path, key=False)

    def check_time(self, path: Path, what: str) -> bool:
        """Whether the section has `time`; if not, that is a problem of the key at the path, which requires it."""
        if self.section.time is None:
            self.problems.add(path, f"'{what}' requires 'time'.", "Add it, for example 'time: {steps: 5}'.", key=True)
        return self.section.time is not None
