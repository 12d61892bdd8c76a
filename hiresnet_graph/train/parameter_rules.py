"""What a recipe says about parts of a network: what is frozen, factors of the learning rate, what is not decayed.

A pattern is an address, in which `*` stands for any characters within one part: `stem`, `stage*.block1`, `edges.*`. It
covers the tensors below it. Needs no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from hiresnet_graph.errors import did_you_mean
from hiresnet_graph.plan import Plan
from hiresnet_graph.spec.pattern import matches
from hiresnet_graph.train.recipe import Recipe

PARAMETER_GROUPS = ("norms", "biases", "tokens", "positions", "scales")
"""What `no_decay` names besides addresses: all parameters called `bias`, and the groups of operations."""


def frozen_tensors(recipe: Recipe, plan: Plan) -> frozenset[str]:
    """The parameters and buffers of a network that training does not change, by `state_dict` name."""
    return frozenset(name for name in plan.tensors() if any(_covers(pattern, name) for pattern in recipe.freeze))


def frozen_layers(recipe: Recipe, plan: Plan) -> tuple[str, ...]:
    """The layers of which all tensors are frozen: a norm among them keeps its statistics, and uses them."""
    frozen = frozen_tensors(recipe, plan)
    layers: dict[str, bool] = {}
    for name in plan.tensors():
        layer = name.rpartition(".")[0]
        layers[layer] = layers.get(layer, True) and name in frozen
    return tuple(layer for layer, is_frozen in layers.items() if is_frozen)


def lr_factors(recipe: Recipe, plan: Plan) -> dict[str, float]:
    """The parameters that are trained, each with the factor of its learning rate, in the order of the network.

    Of several patterns, one without `*` counts, then the one with more parts.
    """
    frozen = frozen_tensors(recipe, plan)
    found = {}
    for name, tensor in plan.tensors().items():
        if tensor.trainable and name not in frozen:
            rules = _rules_of(recipe, name)
            found[name] = rules[0][1] if rules else 1.0
    return found


def undecayed_parameters(recipe: Recipe, plan: Plan) -> frozenset[str]:
    """The parameters of a network without weight decay."""
    found = set()
    for call in plan.calls:
        for tensor in call.tensors:
            name = f"{call.weights}.{tensor.name}"
            groups = (call.op.parameter_group, "biases" if tensor.name == "bias" else "")
            if tensor.trainable and any(
                rule in groups if rule in PARAMETER_GROUPS else _covers(rule, name) for rule in recipe.no_decay
            ):
                found.add(name)
    return frozenset(found)


def check_rules(recipe: Recipe, plans: Sequence[Plan]) -> str:
    """What is wrong with the patterns of a recipe; empty if nothing is.

    Args:
        plans: The networks that are trained with it: each pattern must match something in one of them.
    """
    names = list(dict.fromkeys(name for plan in plans for name in plan.tensors()))
    scaled = [pattern for pattern, _ in recipe.lr_scale]
    undecayed = [pattern for pattern in recipe.no_decay if pattern not in PARAMETER_GROUPS]
    patterns = {"freeze": recipe.freeze, "lr_scale": scaled, "no_decay": undecayed}
    for field, pattern in ((field, pattern) for field, given in patterns.items() for pattern in given):
        if not any(_covers(pattern, name) for name in names):
            groups = PARAMETER_GROUPS if field == "no_decay" else ()
            hint = did_you_mean(pattern, [*groups, *_addresses(names)]) or "'hrg show' lists the nodes and edges."
            return f"{field}: '{pattern}' matches no tensor of the network. {hint}"
    for plan in plans:
        trained = lr_factors(recipe, plan)
        if not trained:
            if not recipe.freeze:
                return f"freeze: '{plan.name}' has no parameters, so there is nothing to train."
            return f"freeze: it covers all parameters of '{plan.name}', so there is nothing to train. Name fewer."
        for name in trained:
            rules = _rules_of(recipe, name)
            if len(rules) > 1 and _rank(rules[0][0]) == _rank(rules[1][0]):
                return f"lr_scale: '{rules[0][0]}' and '{rules[1][0]}' both match '{name}'. Leave one out."
    for pattern in scaled:
        if not any(_covers(pattern, name) for plan in plans for name in lr_factors(recipe, plan)):
            return f"lr_scale: all that '{pattern}' matches is frozen, or has no parameters. Leave it out."
    return ""


def _covers(pattern: str, name: str) -> bool:
    """Whether a pattern matches a tensor, or an address above it."""
    return matches(pattern, ".".join(name.split(".")[: pattern.count(".") + 1]))


def _rules_of(recipe: Recipe, name: str) -> list[tuple[str, float]]:
    """The patterns that match a tensor with their factors, the one that counts first."""
    found = [(pattern, factor) for pattern, factor in recipe.lr_scale if _covers(pattern, name)]
    return sorted(found, key=lambda rule: _rank(rule[0]), reverse=True)


def _rank(pattern: str) -> tuple[bool, int]:
    return "*" not in pattern, pattern.count(".")


def _addresses(names: Iterable[str]) -> Iterator[str]:
    """The names of tensors, and all addresses above them."""
    for name in names:
        parts = name.split(".")
        yield from (".".join(parts[: i + 1]) for i in range(len(parts)))
