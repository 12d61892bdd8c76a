"""Registries of kinds: operations, blocks, merges, projections and data sets, each by name.

A family is an abstract pydantic model; a kind is a concrete subclass with a class variable `kind`. Other packages
import this module, `ops`, `shapes` and the base class of a family, and register their kinds on import. Installed
packages are found through the entry-point group `hiresnet_graph.kinds`, and imported when an unknown kind is requested.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import pkgutil
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, Generic, Self, TypeVar

from pydantic import ConfigDict, ValidationError

from hiresnet_graph.errors import RegistryError, did_you_mean
from hiresnet_graph.float32 import Float32Model

ENTRY_POINT_GROUP = "hiresnet_graph.kinds"


Examples = tuple[Mapping[str, Any], ...]


class Kind(Float32Model):
    """A frozen model with a registered name; unknown fields are errors.

    Class attributes:
        kind: The registered name.
        examples: Fields of valid instances. The tests check all of them, the reference shows the first. Those of a
            block or an operation must accept a map of 8x7x9, a vector of 8, or tokens of 24x12 with a grid of 4x6.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True, protected_namespaces=())
    kind: ClassVar[str] = ""
    examples: ClassVar[Examples] = ({},)

    def changed(self, fields: Mapping[str, Any]) -> Self:
        """A copy with some fields changed.

        Raises:
            ValueError: The fields are invalid; pydantic's error, with the location of each problem.
        """
        own = {name: getattr(self, name) for name in self.model_fields_set}
        return type(self).model_validate({**own, **fields})


class KindError(ValueError):
    """The fields of a nested kind are invalid. Raised in validators, since pydantic does not know kinds."""

    def __init__(self, error: ValidationError, kind: type[Kind]) -> None:
        super().__init__(str(error))
        self.error, self.kind = error, kind


K = TypeVar("K", bound=Kind)
C = TypeVar("C", bound=Kind)
_plugins_loaded = False


def load_plugins() -> None:
    """Import every installed package that provides kinds; later calls do nothing.

    Raises:
        RegistryError: An installed package's entry point cannot be imported.
    """
    global _plugins_loaded
    if _plugins_loaded:
        return
    _plugins_loaded = True
    for entry in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP):
        try:
            entry.load()
        except Exception as error:
            raise RegistryError(
                f"The entry point '{entry.name}' ({entry.value}) cannot be loaded: {error}. Fix or uninstall it."
            ) from error


def import_modules(package: str, path: Iterable[str]) -> None:
    """Import the modules of a package, which register their kinds; `layers` is left out, which needs torch."""
    for module in pkgutil.iter_modules(path):
        if module.name != "layers":
            importlib.import_module(f"{package}.{module.name}")


class Registry(Generic[K]):
    """The kinds of one family, by name.

    Args:
        family: Name of the family in messages, like "block".
        dashes: Whether names may contain dashes.
    """

    def __init__(self, family: str, *, dashes: bool = False) -> None:
        self.family, self.dashes = family, dashes
        self._kinds: dict[str, type[K]] = {}

    def register(self, kind: type[C]) -> type[C]:
        """Add a kind under its `kind` name; a class decorator.

        Raises:
            RegistryError: The class has no valid name, or another class has it. (A class that is defined again, as in
                a notebook cell that runs twice, replaces the previous one.)
        """
        name = kind.__dict__.get("kind", "")
        if not isinstance(name, str) or not (name.replace("-", "_") if self.dashes else name).isidentifier():
            raise RegistryError(
                f"{kind.__name__} needs 'kind: ClassVar[str]' with a {self.family} name like 'my_kind'."
            )
        old = self._kinds.get(name)
        if old is not None and (old.__module__, old.__qualname__) != (kind.__module__, kind.__qualname__):
            raise RegistryError(
                f"The {self.family} name '{name}' is taken by {old.__module__}.{old.__qualname__}. Choose another name."
            )
        self._kinds[name] = kind  # type: ignore[assignment]
        return kind

    def get(self, name: str) -> type[K]:
        """The kind with this name.

        Raises:
            RegistryError: There is none; the message suggests the closest name.
        """
        if name not in self._kinds:
            load_plugins()
        if name not in self._kinds:
            raise RegistryError(f"there is no {self.family} '{name}'. {did_you_mean(name, self._kinds)}".strip())
        return self._kinds[name]

    def __contains__(self, name: object) -> bool:
        if name not in self._kinds:
            load_plugins()
        return name in self._kinds

    def __iter__(self) -> Iterator[str]:
        """The sorted names, including those of installed packages."""
        load_plugins()
        return iter(sorted(self._kinds))

    def discard(self, name: str) -> None:
        """Remove a kind, if present; for tests and notebooks."""
        self._kinds.pop(name, None)
