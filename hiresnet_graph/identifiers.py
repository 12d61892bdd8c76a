"""Python identifiers made from the names in a spec: of classes, and of the arguments of `forward`."""

from __future__ import annotations

import builtins
import keyword
import unicodedata
from collections.abc import Iterable, Set

_IMPORTED = frozenset({"F", "Tensor", "nn", "torch"})
"""What emitted source imports."""
_NEVER_CLASSES = _IMPORTED | frozenset(dir(builtins))
# torch.fx gives its code these names: those of `torch.fx.graph._custom_builtins`, and `self`.
_OF_FX = frozenset({"NoneType", "device", "fx_pytree", "inf", "nan", "pytree", "self"})
_NEVER_ARGUMENTS = _NEVER_CLASSES - {"input"} | _OF_FX | frozenset(keyword.kwlist)
"""What the code of a `forward` may use; `input` is what the only input of a network is usually called."""


def camel_case(name: str, prefix: str, shortest: int = 1) -> str:
    """A text as the name of a class: `my-block` -> `MyBlock`.

    Args:
        prefix: Put before what is too short, or no class name of its own: a keyword, a builtin, a number, nothing.
    """
    name = unicodedata.normalize("NFKC", name)  # as Python does
    words = "".join(char if f"x{char}".isidentifier() and char != "_" else " " for char in name).split()
    text = unicodedata.normalize("NFKC", "".join(word[0].upper() + word[1:] for word in words))
    is_legal = text.isidentifier() and not keyword.iskeyword(text) and text not in _NEVER_CLASSES
    return text if is_legal and len(text) >= shortest else unicodedata.normalize("NFKC", f"{prefix}{text}")


def class_name(name: str) -> str:
    """The class name of a network: `hiresnet18` -> `Hiresnet18`."""
    return camel_case(name, "Net")


def argument_names(inputs: Iterable[str], taken: Set[str] = frozenset()) -> dict[str, str]:
    """Input of a network -> argument of `forward`: the same name, unless code would find it instead of what it means.

    Args:
        taken: Further names that the code uses.
    """
    names: dict[str, str] = {}
    inputs = tuple(inputs)
    for name in inputs:
        text = name.replace(".", "_")
        while text in _NEVER_ARGUMENTS or text in taken or text in names.values() or (text != name and text in inputs):
            text += "_"
        names[name] = text
    return names
