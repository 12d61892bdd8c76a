"""Whether replicas that are computed together are what they are alone: on the device that is measured, in every type.

Axes: M replicas, B images, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import contextlib
import math
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from hiresnet_graph.architecture import Architecture
from hiresnet_graph.stack.branches import Branches
from hiresnet_graph.stack.lowering import Stacked
from hiresnet_graph.stack.replicas import Replicas
from hiresnet_graph.train.environment import tf32_products
from hiresnet_graph.train.recipe import Recipe
from hiresnet_graph.train.trainer import image_format, move_to

BACKENDS: dict[str, type[Replicas]] = {"stacked": Stacked, "branches": Branches}
FLOAT64_TARGET = 1e-9
# How much further from float64 a stack may be than a run alone; rounding differs by as much from kernel to kernel.
FURTHER = 3.0
_VARIANTS = ("full", "original", "in", "out")
Found = dict[str, Tensor]


def _chance(number: int, device: torch.device) -> torch.Generator:
    return torch.Generator(device).manual_seed(number)


def batch_of(arch: Architecture, seed: int, batch: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Random images and labels, in float64."""
    ((_, shape),) = arch.plan.inputs.items()
    chance = _chance(seed, device)
    x_BCHW = torch.randn(batch, *shape, generator=chance, device=device, dtype=torch.float64)
    return x_BCHW, torch.randint(10, (batch,), generator=chance, device=device)


def alone(arch: Architecture, seed: int, batch: int, device: torch.device, precision: str) -> Found:
    """Scores, gradients and statistics of one step of a network alone, in the layout of training."""
    layout = image_format(Recipe(), arch.plan)
    module = move_to(arch.build(seed).to(dtype=_type(precision)).train(), device, layout)
    x_BCHW, labels_B = batch_of(arch, seed, batch, device)
    with _computing(device, precision):
        scores_BK = module(x_BCHW.to(_type(precision)).contiguous(memory_format=layout))
    cross_entropy(_wide(scores_BK), labels_B).backward()  # type: ignore[no-untyped-call]
    grads = {f"gradient of {name}": value.grad for name, value in module.named_parameters()}
    buffers = {name: value for name, value in module.named_buffers() if value.is_floating_point()}
    return {"scores": scores_BK.detach(), **grads, **buffers}  # type: ignore[dict-item]


def together(
    backend: type[Replicas],
    whole: Architecture,
    parts: Sequence[Architecture],
    seeds: Sequence[int],
    batch: int,
    device: torch.device,
    precision: str,
    spoilt: int | None = None,
) -> list[Found]:
    """The same of each replica of a stack; the images of one may be NaN."""
    replicas = backend(whole.plan, [part.plan for part in parts], device=device, dtype=_type(precision))
    for k, (part, seed) in enumerate(zip(parts, seeds, strict=True)):
        replicas.load(k, part.build(seed).state_dict())
    batches = [batch_of(whole, seed, batch, device) for seed in seeds]
    x_MBCHW = torch.stack([x_BCHW for x_BCHW, _ in batches]).to(_type(precision))
    if spoilt is not None:
        x_MBCHW[spoilt] = math.nan
    labels_MB = torch.stack([labels_B for _, labels_B in batches])
    replicas.zero_grad()
    with _computing(device, precision):
        scores_MBK = replicas(x_MBCHW, training=True)
    losses = cross_entropy(_wide(scores_MBK).flatten(0, 1), labels_MB.flatten(), reduction="none")
    losses.view(len(seeds), batch).mean(1).sum().backward()  # type: ignore[no-untyped-call]
    found: list[Found] = []
    for k in range(len(seeds)):
        grads = {f"gradient of {name}": value for name, value in replicas.spread(k, replicas.grad).items()}
        state = {
            name: value
            for name, value in replicas.state(k).items()
            if value.is_floating_point() and f"gradient of {name}" not in grads
        }
        found.append({"scores": scores_MBK[k].detach(), **grads, **state})
    return found


def _type(precision: str) -> torch.dtype:
    return torch.float64 if precision == "fp64" else torch.float32


def _wide(scores: Tensor) -> Tensor:
    return scores if scores.dtype == torch.float64 else scores.float()


@contextlib.contextmanager
def _computing(device: torch.device, precision: str) -> Any:
    low = torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()
    with tf32_products(precision == "tf32") if device.type == "cuda" else contextlib.nullcontext(), low:
        yield


def distance(ours: Found, exact: Found) -> float:
    """||ours - exact|| / ||exact||: the largest of scores, all gradients, all statistics; infinite if not finite."""
    assert ours.keys() == exact.keys()
    worst = 0.0
    for kind in ("scores", "gradient of ", ""):
        names = [name for name in exact if _kind(name) == kind]
        mine, right = (torch.cat([found[name].double().flatten() for name in names]) for found in (ours, exact))
        error = float((mine - right).norm() / right.norm())
        worst = max(worst, error if math.isfinite(error) else math.inf)
    return worst


def _kind(name: str) -> str:
    return name if name == "scores" else "gradient of " if name.startswith("gradient of ") else ""


def same_bits(ours: Found, theirs: Found) -> bool:
    """Whether all tensors are equal bit for bit."""
    return all(torch.equal(ours[name], value) for name, value in theirs.items())


def agreement(
    arch: Architecture, batch: int, device: torch.device, precisions: Sequence[str], *, quick: bool
) -> dict[str, Any]:
    """One step of four replicas with other seeds and edges, stacked and alone; and whether bits depend on M.

    Args:
        arch: A network with the variants `full`, `original`, `in` and `out`.
        quick: Look at 3 and 4 replicas only.
    """
    whole = arch.variant(_VARIANTS[0])
    parts, seeds = [arch.variant(name) for name in _VARIANTS], range(len(_VARIANTS))
    single = partial(alone, batch=batch, device=device)
    exact = [single(part, seed, precision="fp64") for part, seed in zip(parts, seeds, strict=True)]

    def far(found: Sequence[Found], precision: str) -> float:
        """How far the worst replica is from float64; of rounded types the lower median, since a value that rounding
        brings to the other side of a ReLU changes the gradients of its replica by far more."""
        distances = [distance(ours, other) for ours, other in zip(found, exact, strict=True)]
        return max(distances) if precision == "fp64" else statistics.median_low(distances)

    result: dict[str, Any] = {"alone": {}}
    for precision in precisions:
        found = [single(part, seed, precision=precision) for part, seed in zip(parts, seeds, strict=True)]
        result["alone"][precision] = far(found, precision)
    for name, backend in BACKENDS.items():
        run: Callable[..., list[Found]] = partial(together, backend, whole, batch=batch, device=device)
        errors = {p: far(run(parts=parts, seeds=seeds, precision=p), p) for p in ("fp64", *precisions)}
        allowed = {"fp64": FLOAT64_TARGET} | {p: FURTHER * result["alone"][p] for p in precisions}
        bits, repeats = {}, {}
        for p in ("fp64", *precisions):
            bits[p], repeats[p] = _invariant(run, whole, p, quick)
        result[name] = {
            precision: {
                "error": error if math.isfinite(error) else None,
                "allowed": allowed[precision],
                "met": error <= allowed[precision],
                "m_invariant": bits[precision],
                "repeatable": repeats[precision],
            }
            for precision, error in errors.items()
        }
    return result


def _invariant(run: Callable[..., list[Found]], whole: Architecture, precision: str, quick: bool) -> tuple[bool, bool]:
    """Whether a replica is the same to the bit among 3, 4 and 8, at other places, beside one that is NaN; and whether
    the same stack is the same to the bit twice, without which that cannot be.
    """

    def seen(seeds: Sequence[int], spoilt: int | None = None) -> Found:
        found = run(parts=[whole] * len(seeds), seeds=seeds, precision=precision, spoilt=spoilt)
        return found[seeds.index(0)]

    first, again, others = seen([0, 1, 2]), seen([0, 1, 2]), [seen([5, 6, 0, 7], 1)]
    if not quick:
        others += [seen([5, 6, 0, 7]), seen([9, 8, 7, 6, 5, 0, 4, 3])]
    return all(same_bits(other, first) for other in others), same_bits(again, first)
