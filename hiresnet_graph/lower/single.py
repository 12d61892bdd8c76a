"""A plan as nested `torch.fx.GraphModule`s."""

from __future__ import annotations

from torch import fx, nn

from hiresnet_graph.identifiers import class_name
from hiresnet_graph.lower.code import GraphWriter
from hiresnet_graph.lower.nested import add_containers, nest
from hiresnet_graph.lower.weights import attach, make_layers
from hiresnet_graph.plan import Plan, layers_by_weight


def build(plan: Plan, seed: int = 0) -> fx.GraphModule:
    """The module of a plan: straight-line code at every level, without a reference to this package.

    Args:
        seed: Seed of the initial weights; each is drawn from (seed, its name) alone.

    Shape: each input [B, channels, height, width] or [B, channels]; the output likewise, or a dict of outputs.
    """
    return _module(module_of_layers(plan, seed), GraphWriter(plan))


def subnetwork(plan: Plan, part: Plan, module: nn.Module) -> fx.GraphModule:
    """A part of a network as another module over the same layers.

    Args:
        plan: Of the network.
        part: Some of its calls; see `plan.restrict`.
        module: Has the layers of the network.
    """
    root = nn.Module()
    attach(root, {name: module.get_submodule(name) for name in layers_by_weight(part)})
    layers = {name: layer for name, (layer, _) in layers_by_weight(plan).items()}
    found = _module(root, GraphWriter(part, layers))
    found.training = module.training
    return found


def _module(root: nn.Module, writer: GraphWriter) -> fx.GraphModule:
    """The network over the layers in `root`."""
    add_containers(root, writer)
    module = fx.GraphModule(root, writer.network(), class_name=class_name(writer.plan.name))
    module._modules = root._modules
    nest(module, writer)
    return module


def module_of_layers(plan: Plan, seed: int) -> nn.Module:
    """A module without `forward` that contains the layers of a plan."""
    root = nn.Module()
    attach(root, make_layers(plan, seed))
    return root
