"""Checks that a network, a data set and a recipe go together. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hiresnet_graph.blocks import BLOCKS
from hiresnet_graph.errors import UsageError, did_you_mean
from hiresnet_graph.formats import format_count
from hiresnet_graph.ops import OPS
from hiresnet_graph.passes.timing import format_steps, timing
from hiresnet_graph.plan import Call, Plan
from hiresnet_graph.shapes import Map, Vector
from hiresnet_graph.train.recipe import Recipe

if TYPE_CHECKING:
    from hiresnet_graph.data.dataset import Dataset


def match_input(dataset: Dataset, plan: Plan, outputs: Sequence[str] = ()) -> Dataset:
    """The data set with its images in the input shape of a network.

    Args:
        outputs: Names of the outputs that are trained; by default the only one.

    Raises:
        UsageError: The network does not map one image to one score for each class (at each readout step, with
            `readout: all`); or the data have fewer than two classes, or a class without training images.
    """
    _check_classes(dataset)
    shapes = list(plan.inputs.values())
    if len(shapes) == 1 and shapes[0].steps is not None:
        raise UsageError(
            f"'{plan.name}' takes another image at each of {shapes[0].steps} steps ('input: sequence'), but data "
            f"'{dataset.name}' has single images, without a time axis. Set 'time.input=every' (the same image at "
            "each step) or 'time.input=first'."
        )
    if len(shapes) != 1 or not isinstance(shapes[0], Map):
        raise UsageError(
            f"'{plan.name}' takes {', '.join(f'{name} ({shape})' for name, shape in plan.inputs.items())}; "
            "training requires one input of channels x height x width."
        )
    check_outputs(dataset.name, dataset.classes, plan, outputs)
    return dataset.with_shape(shapes[0])


def check_outputs(data: str, classes: int, plan: Plan, outputs: Sequence[str] = ()) -> None:
    """Check that the outputs that are trained give one score for each class.

    Args:
        data: Name of the data set.
        classes: Its number of classes.
        outputs: Names of the outputs that are trained; by default the only one.

    Raises:
        UsageError: They do not; or several outputs are trained that differ in their readout steps.
    """
    if message := check_losses(outputs, plan):
        raise UsageError(f"recipe.losses: {message}")
    shapes = {call.name: call.shape for call in plan.calls}
    scores = [shapes.get(plan.outputs[name]) for name in outputs or plan.outputs]
    is_fitting = all(shape is not None and shape.frame == Vector(classes) for shape in scores)
    if len(scores) > 1 and not outputs and is_fitting:
        weights = ", ".join(f"{name}: {0.3 if i else 1}" for i, name in enumerate(plan.outputs))
        raise UsageError(
            f"'{plan.name}' has {len(scores)} outputs: {', '.join(plan.outputs)}. Give the weights of their losses in "
            f"the recipe, the main one first, like 'losses: {{{weights}}}'."
        )
    if not is_fitting or (len(scores) > 1 and not outputs):
        one = f"outputs of {classes} values for 'losses'" if outputs else f"one output of {classes} values"
        raise UsageError(
            f"'{plan.name}' gives {', '.join(str(shape) for shape in scores)}, but data '{data}' has "
            f"{classes} classes: training requires {one}. {_class_hint(plan, classes)}"
        )
    if len(steps := {shape.steps or 1 for shape in scores if shape is not None}) > 1:
        raise UsageError(
            f"recipe.losses: the outputs {', '.join(outputs)} of '{plan.name}' differ in their readout steps: "
            f"{', '.join(map(str, sorted(steps)))}. Train those of one number."
        )


def check_losses(outputs: Sequence[str], plan: Plan) -> str:
    """What is wrong with the outputs that a recipe trains (`losses`) for a network; empty if nothing is."""
    for name in outputs:
        if name not in plan.outputs:
            hint = did_you_mean(name, plan.outputs) or f"It has {', '.join(plan.outputs)}."
            return f"'{plan.name}' has no output '{name}'. {hint}"
    return ""


def _check_classes(dataset: Dataset) -> None:
    if dataset.classes < 2:
        raise UsageError(
            f"data '{dataset.name}' has {dataset.classes} class, and training requires two or more. Add images of "
            "another class."
        )
    for part, indices in dataset.split._asdict().items():
        if not indices:
            raise UsageError(f"data '{dataset.name}': the split has no images for {part}. Add images to it.")
    if missing := dataset.untrained_classes:
        shown = ", ".join(dataset.class_names[label] if dataset.class_names else str(label) for label in missing[:5])
        raise UsageError(
            f"data '{dataset.name}': {len(missing)} of {dataset.classes} classes have no training images: {shown}"
            f"{', ...' if len(missing) > 5 else ''}. Add images, or omit the classes."
        )


def _class_hint(plan: Plan, classes: int) -> str:
    """How to make the network give a score for each class."""
    outputs = _outputs(plan)
    # With `readout: all`, the output stacks the values of a node.
    stacked = [name for call in outputs if call.shape.steps is not None for name in call.inputs]
    ends = [node for node in plan.nodes if node.value in (*plan.outputs.values(), *stacked)]
    if len(ends) == 1 and (field := _width_field(plan, ends[0].value)):
        return f"Set '{field}={classes}'."
    return f"End the spec with a node like 'head: {{block: classifier, classes: {classes}}}'."


def _width_field(plan: Plan, value: str) -> str:
    """The field that sets the size of a vector, like `fc.width`, also behind operations that keep it; or empty."""
    calls = {call.name: call for call in plan.calls}
    nodes = {node.value: node for node in plan.nodes}
    while (call := calls.get(value)) is not None:
        node = nodes.get(value)
        for registry in (BLOCKS, OPS):
            if node is not None and node.block in registry and (field := registry.get(node.block).classes_field):
                return f"{node.name}.{field}"
        if [shape.frame for shape in call.input_shapes] != [call.shape.frame]:
            break
        value = call.inputs[0]
    return ""


def _outputs(plan: Plan) -> list[Call]:
    return [call for call in plan.calls if call.name in plan.outputs.values()]


def count_readouts(plan: Plan) -> int:
    """The number of steps that a network outputs: more than 1 only with `readout: all`, which stacks them."""
    return max((call.shape.steps or 1 for call in _outputs(plan)), default=1)


def check_loss_steps(recipe: Recipe, plan: Plan) -> str:
    """What is wrong with the `loss_steps` of a recipe for a network; empty if nothing is."""
    number, weights = count_readouts(plan), recipe.loss_steps
    if isinstance(weights, str) or number == 1 or len(weights) == number:
        return ""
    assert plan.folded is not None
    given = "1 weight" if len(weights) == 1 else f"{len(weights)} weights"
    return (
        f"'loss_steps' has {given}, and '{plan.name}' is read out at {number} steps: "
        f"{format_steps(timing(plan.folded).readouts)}. Give one weight for each, or 'mean' or 'last'."
    )


def check_batch_size(recipe: Recipe, dataset: Dataset) -> str:
    """What is wrong with the batch size of a recipe for a data set; empty if nothing is."""
    images = len(dataset.split.train)
    if recipe.batch_size <= images:
        return ""
    return (
        f"the batch size is {recipe.batch_size:,}, but data '{dataset.name}' has only {images:,} training images. "
        f"Set 'batch_size: {images}' or smaller ('--batch-size {images}')."
    )


def check_class_weights(recipe: Recipe, dataset: Dataset) -> str:
    """What is wrong with the class weights of a recipe for a data set; empty if nothing is."""
    weights = recipe.class_weights
    if weights is None or weights == "balanced" or len(weights) == dataset.classes:
        return ""
    return (
        f"'class_weights' has {format_count(len(weights), 'weight')}, but data '{dataset.name}' has {dataset.classes} "
        "classes. Give one for each, or 'balanced'."
    )


def check_smallest_batch(recipe: Recipe, dataset: Dataset, plan: Plan, processes: int = 1) -> str:
    """What is wrong if a batch is too small for an operation of a network; empty if nothing is.

    Args:
        processes: Number of processes that share each batch.
    """
    images, size = len(dataset.split.train), recipe.batch_size
    rest = 0 if recipe.drop_last else images % size
    needs = [(call.op.smallest_batch(*call.input_shapes), call) for call in plan.calls]
    least, call = max(needs, key=lambda need: need[0])
    parts = processes * recipe.accumulate
    if least <= max(1, (rest or size) // parts):  # parts without images are not computed
        return ""
    at = f" ({call.origin.position})" if call.origin.position else ""
    shared = f", shared by {processes} processes" if processes > 1 else ""
    shared += f", in {recipe.accumulate} parts ('accumulate')" if recipe.accumulate > 1 else ""
    which = f"the last batch of an epoch has {rest:,}" if rest else f"a batch has {size:,}"
    omits = bool(rest) and size >= least * parts
    remedies = ["'drop_last: true' ('--recipe drop_last=true') to omit it"] if omits else []
    if other := _fitting_size(images, size, least * parts):
        remedies.append(f"'batch_size: {other}' ('--batch-size {other}')")
    return (
        f"{which} of the {images:,} training images of data '{dataset.name}'{shared}. '{call.name}'{at} requires at "
        f"least {least} images in training, since each channel has one value per image. "
        + (f"Set {', or '.join(remedies)}." if remedies else "Use more training images.")
    )


def _fitting_size(images: int, size: int, least: int) -> int | None:
    """The batch size closest to `size` with which no batch has fewer images than `least`; None if there is none."""
    sizes = (other for other in range(least, images + 1) if not 0 < images % other < least)
    return min(sizes, key=lambda other: abs(other - size), default=None)
