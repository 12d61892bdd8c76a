"""One table for each family of kinds: operations, blocks, merges, projections.

A family is an abstract pydantic model, a kind a final one with a class variable `kind`. Other packages import this
module, `ops`, `shapes` and the base class of a family, and register their kinds on import; an installed package is
imported through an entry point of the group `hiresnet_graph.kinds` as soon as a kind is asked for that we lack.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Generic, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from hiresnet_graph.errors import RegistryError, did_you_mean

ENTRY_POINT_GROUP = "hiresnet_graph.kinds"


class Kind(BaseModel):
    """A frozen description with a registered name; unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True, protected_namespaces=())
    kind: ClassVar[str] = ""

    def changed(self, fields: Mapping[str, Any]) -> Self:
        """The same kind with some fields changed.

        Raises:
            ValueError: The kind does not take them; pydantic's error, with the place of each mistake.
        """
        own = {name: getattr(self, name) for name in self.model_fields_set}
        return type(self).model_validate({**own, **fields})


class KindError(ValueError):
    """The fields of a kind that stands inside another are wrong; for validators, since pydantic knows no kinds."""

    def __init__(self, error: ValidationError, kind: type[Kind]) -> None:
        super().__init__(str(error))
        self.error, self.kind = error, kind


K = TypeVar("K", bound=Kind)
C = TypeVar("C", bound=Kind)
_plugins_loaded = False


def load_plugins() -> None:
    """Import every installed package that offers kinds. A second call does nothing.

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
                f"The entry point '{entry.name}' ({entry.value}) cannot be loaded: {error}. Mend or uninstall it."
            ) from error


class Registry(Generic[K]):
    """The kinds of one family, by name.

    Args:
        family: What one kind is called in messages, like "block".
        dashes: Whether a name may have dashes between its words.
    """

    def __init__(self, family: str, *, dashes: bool = False) -> None:
        self.family, self.dashes = family, dashes
        self._kinds: dict[str, type[K]] = {}

    def register(self, kind: type[C]) -> type[C]:
        """Add a kind under its `kind` name; serves as a class decorator.

        Raises:
            RegistryError: The class has no name, or another class has it. (The same class defined anew, as a notebook
                cell that runs twice does, replaces the old one.)
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
        """The kind of this name.

        Raises:
            RegistryError: There is none; the message has the closest name.
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
        """The names, sorted, those of installed packages included."""
        load_plugins()
        return iter(sorted(self._kinds))

    def discard(self, name: str) -> None:
        """Forget a kind, if it is there; for tests and notebooks."""
        self._kinds.pop(name, None)
