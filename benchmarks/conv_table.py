"""How long the convolutions of `hiresnet18` take for M replicas, in each way that they can be computed.

    python -m benchmarks.conv_table [--quick] [--json FILE] [--threads N] [--device D] [--replicas M,M] [--parts A,B]

Every distinct convolution of the plan, with the batch of the paper's protocol: forward, gradient of the input and
gradient of the weights apart, in float32, TF32 (GPUs) and bfloat16. The ways are M convolutions one after the other,
one grouped convolution, both also in channels last, and for 1x1 kernels a product of matrices for all replicas. Ways
take turns. On a GPU each is captured as a CUDA graph, with several inputs in it where one would stay in the caches,
and its replays are timed by events; parts named `searched` let cuDNN try its algorithms first.

Every result is compared with float64. A way is marked `wrong` if it is further from that than its precision allows,
`leaks` if another replica's NaN reaches a replica, and `by M` if a replica's bits depend on how many others there are
(from 3 replicas on).
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

import hiresnet_graph as hrg
from benchmarks.limits import copy_bytes_per_s, events
from benchmarks.measure import Options, finish, options, table
from benchmarks.parts import part_arguments, results_of, told
from hiresnet_graph.ops.base import pair
from hiresnet_graph.plan import Plan
from hiresnet_graph.shapes import Map
from hiresnet_graph.train.environment import choose_device, tf32_products

PASSES = ("forward", "input gradient", "weight gradient")
# ||result - float64|| / ||float64||: several times what is usual for each.
FAR = {"fp32": 1e-4, "tf32": 5e-3, "bf16": 3e-2}
TYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16}
# Inputs of one way on a GPU together: more than its caches hold.
_UNCACHED_BYTES = 256 << 20
_MOST_SETS = 16
_SKIPS = "skips"


@dataclass(frozen=True)
class Conv:
    """A convolution of the network, without bias: C channels at H x W to O channels at h x w."""

    channels: int
    width: int
    kernel: int
    stride: int
    padding: int
    size: int
    out: int

    def __str__(self) -> str:
        step = f" / {self.stride}" if self.stride > 1 else ""
        return f"{self.kernel}x{self.kernel} {self.channels} -> {self.width} at {self.size}{step}"

    def elements(self, batch: int) -> int:
        """Numbers that one pass must at least read and write, of one replica."""
        images = self.channels * self.size**2 + self.width * self.out**2
        return batch * images + self.width * self.channels * self.kernel**2


def convolutions(plan: Plan) -> dict[str, Counter[Conv]]:
    """The convolutions of a plan by stage, and how often each is there."""
    found: dict[str, Counter[Conv]] = {}
    for call in plan.calls:
        if call.op.kind != "conv2d":
            continue
        layer = call.op.layer(*call.input_shapes)
        weight, *bias = call.tensors
        width, channels, kernel, across = weight.shape
        assert layer is not None
        stride, padding = pair(layer.kwargs.get("stride", 1)), pair(layer.kwargs.get("padding", 0))
        given, made = call.input_shapes[0], call.shape
        assert isinstance(given, Map) and isinstance(made, Map)
        square = kernel == across and stride[0] == stride[1] and padding[0] == padding[1]
        plain = square and given.height == given.width and not bias and channels == given.channels
        assert plain, f"{call.name}: another kind of convolution"
        conv = Conv(channels, width, kernel, stride[0], padding[0], given.height, made.height)
        place = call.owner.partition(".")[0]
        found.setdefault(_SKIPS if place == "edges" else place, Counter())[conv] += 1
    return dict(sorted(found.items(), key=lambda stage: stage[0] == _SKIPS))


# ---------------------------------------------------------------------------------------------------------------- ways


@dataclass(frozen=True)
class Inputs:
    """Of one pass of M replicas."""

    x_MBCHW: Tensor
    w_MOCkk: Tensor
    g_MBOhw: Tensor

    @classmethod
    def drawn(cls, conv: Conv, replicas: int, batch: int, number: int, device: torch.device) -> Inputs:
        """Replica k gets the same however many there are."""
        x, w, g = [], [], []
        for k in range(replicas):
            chance = torch.Generator(device).manual_seed(1000 * number + k)

            def normal(*shape: int, chance: torch.Generator = chance) -> Tensor:
                return torch.randn(shape, generator=chance, device=device)

            x.append(normal(batch, conv.channels, conv.size, conv.size))
            w.append(normal(conv.width, conv.channels, conv.kernel, conv.kernel) / (conv.channels**0.5 * conv.kernel))
            g.append(normal(batch, conv.width, conv.out, conv.out))
        return cls(*(torch.stack(tensors) for tensors in (x, w, g)))

    def of(self, kind: torch.dtype) -> Inputs:
        """In another type."""
        return Inputs(self.x_MBCHW.to(kind), self.w_MOCkk.to(kind), self.g_MBOhw.to(kind))

    def spoilt(self) -> Inputs:
        """The last replica is NaN."""
        tensors = [tensor.clone() for tensor in (self.x_MBCHW, self.w_MOCkk, self.g_MBOhw)]
        for tensor in tensors:
            tensor[-1] = math.nan
        return Inputs(*tensors)


class Way:
    """One way to compute a convolution of M replicas, with its inputs laid out as it wants them.

    `run` is one of the passes in this layout; `replicas` brings its result to [M, ...].
    """

    def __init__(self, conv: Conv, given: Inputs) -> None:
        self.conv, self.given = conv, given
        self.count, self.batch = given.x_MBCHW.shape[:2]

    def run(self, what: str) -> Any:
        """A pass."""
        raise NotImplementedError

    def replicas(self, what: str, result: Any) -> Any:
        """Its result, replica by replica."""
        raise NotImplementedError

    def _pass(self, what: str, x: Tensor, w: Tensor, g: Tensor, groups: int) -> Tensor:
        stride, padding = [self.conv.stride] * 2, [self.conv.padding] * 2
        if what == "forward":
            return F.conv2d(x, w, None, stride, padding, 1, groups)
        wanted = [what == name for name in PASSES[1:]]
        found: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.convolution_backward(
            g, x, w, None, stride, padding, [1, 1], False, [0, 0], groups, [*wanted, False]
        )
        return found[0] if wanted[0] else found[1]


class Separate(Way):
    """M convolutions, one after the other."""

    layout = torch.contiguous_format

    def __init__(self, conv: Conv, given: Inputs) -> None:
        super().__init__(conv, given)
        tensors = (given.x_MBCHW, given.w_MOCkk, given.g_MBOhw)
        self.parts = [tuple(t[k].contiguous(memory_format=self.layout) for t in tensors) for k in range(self.count)]

    def run(self, what: str) -> Any:
        return [self._pass(what, x, w, g, 1) for x, w, g in self.parts]

    def replicas(self, what: str, result: Any) -> Any:
        return torch.stack(result)


class SeparateLast(Separate):
    """The same in channels last."""

    layout = torch.channels_last


class Grouped(Way):
    """One convolution with M groups."""

    layout = torch.contiguous_format

    def __init__(self, conv: Conv, given: Inputs) -> None:
        super().__init__(conv, given)
        joined = (given.x_MBCHW.transpose(0, 1).flatten(1, 2), given.w_MOCkk.flatten(0, 1))
        x, w = (tensor.contiguous(memory_format=self.layout) for tensor in joined)
        g = given.g_MBOhw.transpose(0, 1).flatten(1, 2).contiguous(memory_format=self.layout)
        self.tensors = (x, w, g)

    def run(self, what: str) -> Any:
        return self._pass(what, *self.tensors, self.count)

    def replicas(self, what: str, result: Any) -> Any:
        if what == "weight gradient":
            return result.view(self.count, -1, *result.shape[1:])
        return result.view(self.batch, self.count, -1, *result.shape[2:]).transpose(0, 1)


class GroupedLast(Grouped):
    """The same in channels last."""

    layout = torch.channels_last


class Product(Way):
    """A 1x1 convolution as products of matrices, on images [M, B, C, H W]."""

    def run(self, what: str) -> Any:
        conv, step = self.conv, self.conv.stride
        x, w_MOC = self.given.x_MBCHW, self.given.w_MOCkk.flatten(2)
        g_MBOp = self.given.g_MBOhw.flatten(3)
        if what == "input gradient":
            found = w_MOC.mT[:, None] @ g_MBOp
            if step == 1:
                return found
            dx = torch.zeros_like(x)
            dx[..., ::step, ::step] = found.view(*found.shape[:3], conv.out, conv.out)
            return dx
        x_MBCp = (x if step == 1 else x[..., ::step, ::step]).flatten(3)
        if what == "forward":
            return w_MOC[:, None] @ x_MBCp
        return (g_MBOp @ x_MBCp.mT).sum(1)

    def replicas(self, what: str, result: Any) -> Any:
        if what == "weight gradient":
            return result[..., None, None]
        size = self.conv.out if what == "forward" else self.conv.size
        return result if result.dim() == 5 else result.unflatten(3, (size, size))


class ProductLast(Way):
    """A 1x1 convolution as one product of matrices for each replica, on images [M, B, H, W, C]."""

    def __init__(self, conv: Conv, given: Inputs) -> None:
        super().__init__(conv, given)
        self.x_MBHWC = given.x_MBCHW.permute(0, 1, 3, 4, 2).contiguous()
        self.g_MpO = given.g_MBOhw.permute(0, 1, 3, 4, 2).flatten(1, 3).contiguous()
        self.w_MOC = given.w_MOCkk.flatten(2).contiguous()

    def run(self, what: str) -> Any:
        step, x = self.conv.stride, self.x_MBHWC
        if what == "input gradient":
            found = self.g_MpO @ self.w_MOC
            if step == 1:
                return found
            dx = torch.zeros_like(x)
            dx[:, :, ::step, ::step] = found.view(self.count, self.batch, self.conv.out, self.conv.out, -1)
            return dx
        x_MpC = (x if step == 1 else x[:, :, ::step, ::step]).flatten(1, 3)
        return x_MpC @ self.w_MOC.mT if what == "forward" else self.g_MpO.mT @ x_MpC

    def replicas(self, what: str, result: Any) -> Any:
        if what == "weight gradient":
            return result[..., None, None]
        size = self.conv.out if what == "forward" else self.conv.size
        return result.view(self.count, self.batch, size, size, -1).permute(0, 1, 4, 2, 3)


WAYS: dict[str, type[Way]] = {
    "separate": Separate,
    "separate, channels last": SeparateLast,
    "grouped": Grouped,
    "grouped, channels last": GroupedLast,
    "product": Product,
    "product, channels last": ProductLast,
}


def ways_of(conv: Conv) -> dict[str, type[Way]]:
    """The ways that this convolution can be computed in."""
    return {name: way for name, way in WAYS.items() if conv.kernel == 1 or not issubclass(way, Product | ProductLast)}


# -------------------------------------------------------------------------------------------------------------- timing


@contextmanager
def computing(precision: str, searched: bool) -> Iterator[None]:
    """Within, GPUs multiply as a precision says, and cuDNN tries its algorithms if that is wanted."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = searched
    try:
        with tf32_products(precision == "tf32"):
            yield
    finally:
        torch.backends.cudnn.benchmark = before


def timer(runs: Sequence[Callable[[], object]], device: torch.device, budget_s: float) -> Callable[[], float]:
    """Gives the seconds of one of these runs, which do the same on other inputs; warmed up, and on a GPU captured."""
    if device.type == "cpu":
        for run in runs:
            run()

        def on_cpu() -> float:
            start = time.perf_counter()
            for run in runs:
                run()
            return (time.perf_counter() - start) / len(runs)

        return on_cpu
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        for _ in range(2):
            for run in runs:
                run()
    torch.cuda.current_stream(device).wait_stream(stream)
    torch.cuda.synchronize(device)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept = [run() for run in runs]
    del kept

    def replayed(times: int) -> float:
        begin, end = events()
        begin.record()
        for _ in range(times):
            graph.replay()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end)) / 1000 / times / len(runs)

    replayed(1)
    times = max(1, min(50, round(budget_s / max(1e-7, replayed(1) * len(runs)))))
    return lambda: replayed(times)


def cell(
    conv: Conv, replicas: int, batch: int, precision: str, device: torch.device, rounds: int, budget_s: float
) -> dict[str, Any]:
    """All ways and passes of one convolution."""
    kind = TYPES[precision]
    nbytes = replicas * conv.elements(batch) * kind.itemsize
    sets = 1 if device.type == "cpu" else max(1, min(_MOST_SETS, math.ceil(_UNCACHED_BYTES / nbytes)))
    inputs = [Inputs.drawn(conv, replicas, batch, number, device).of(kind) for number in range(sets)]
    exact = Separate(conv, inputs[0].of(torch.float64))
    spoilt = inputs[0].spoilt() if replicas > 1 else None
    found: dict[str, Any] = {}
    for what in PASSES:
        reference = exact.replicas(what, exact.run(what))
        timers: dict[str, Callable[[], float]] = {}
        for name, kind_of_way in ways_of(conv).items():
            ways = [kind_of_way(conv, one) for one in inputs]
            result = ways[0].replicas(what, ways[0].run(what))
            error = float((result.double() - reference).norm() / reference.norm())
            leaks = False
            if spoilt is not None:
                other = kind_of_way(conv, spoilt)
                leaks = not bool(torch.isfinite(other.replicas(what, other.run(what))[:-1]).all())
            # The bits of replica 0, as a number that says whether they change.
            bits = int(result[0].contiguous().view(_WHOLE[kind]).long().sum())
            right = math.isfinite(error) and error <= FAR[precision]
            entry = {
                "error": error if math.isfinite(error) else None,
                "right": right,
                "leaks": leaks,
                "bits": str(bits),
            }
            found.setdefault(name, {})[what] = entry
            runs = [partial(way.run, what) for way in ways]
            timers[name] = timer(runs, device, budget_s)
        times: dict[str, list[float]] = {name: [] for name in timers}
        for turn in range(rounds):
            for name in timers if turn % 2 == 0 else reversed(timers):
                times[name].append(timers[name]())
        for name, seconds in times.items():
            found[name][what]["seconds"] = statistics.median(seconds)
    return {"ways": found, "least_bytes": nbytes}


_WHOLE = {torch.float32: torch.int32, torch.bfloat16: torch.int16}


def measured(
    convs: Sequence[Conv],
    replicas: Sequence[int],
    batch: int,
    precision: str,
    searched: bool,
    device: torch.device,
    rounds: int,
    budget_s: float,
) -> dict[str, Any]:
    """All convolutions, for each number of replicas."""
    cells: dict[str, dict[str, Any]] = {}
    with computing(precision, searched), torch.no_grad():
        for conv in convs:
            cells[str(conv)] = {str(m): cell(conv, m, batch, precision, device, rounds, budget_s) for m in replicas}
            if device.type == "cuda":
                torch.cuda.empty_cache()
    return {"cells": cells}


# -------------------------------------------------------------------------------------------------------------- report


def remarks_of(cells: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """What is wrong with a way, and where."""
    found: dict[str, list[str]] = {}

    def note(name: str, what: str, mistake: str, where: str) -> None:
        places = found.setdefault(f"{name}, {what}: {mistake}", [])
        if where not in places:
            places.append(where)

    for conv, by_replicas in cells.items():
        bits: dict[tuple[str, str], set[str]] = {}
        for replicas, entry in by_replicas.items():
            for name, passes in entry["ways"].items():
                for what, value in passes.items():
                    if not value["right"]:
                        note(name, what, "wrong", conv)
                    if value["leaks"]:
                        note(name, what, "leaks", conv)
                    if int(replicas) >= 3:
                        bits.setdefault((name, what), set()).add(value["bits"])
        for (name, what), values in bits.items():
            if len(values) > 1:
                note(name, what, "by M", conv)
    return found


def seconds_of(cells: Mapping[str, Any], counts: Counter[Conv], replicas: int, way: str, what: str) -> float | None:
    """Of all convolutions in `counts` together; None if one of them cannot be computed so."""
    total = 0.0
    for conv, count in counts.items():
        passes = cells[str(conv)][str(replicas)]["ways"].get(way)
        if passes is None:
            return None
        total += count * passes[what]["seconds"]
    return total


def stage_table(part: Mapping[str, Any], stages: Mapping[str, Counter[Conv]], replicas: int, bytes_per_s: float) -> str:
    """Microseconds a replica, stage by stage; the fastest way, and how much of the bandwidth it has of the least."""
    cells, rows = part["cells"], []
    whole: Counter[Conv] = Counter()
    for counts in stages.values():
        whole.update(counts)
    for stage, counts in [*stages.items(), ("the whole net", whole)]:
        for what in PASSES:
            times = {way: seconds_of(cells, counts, replicas, way, what) for way in WAYS}
            shown = ["" if value is None else f"{1e6 * value / replicas:.1f}" for value in times.values()]
            best = min((way for way, value in times.items() if value is not None), key=lambda way: times[way] or 0.0)
            least = sum(n * cells[str(conv)][str(replicas)]["least_bytes"] for conv, n in counts.items())
            share = least / bytes_per_s / (times[best] or math.inf)
            rows.append((f"{stage}, {what}", *shown, best, f"{100 * share:.0f} %"))
    return table((f"us a replica, M = {replicas}", *WAYS, "fastest", "of the bandwidth"), rows)


def total_table(part: Mapping[str, Any], stages: Mapping[str, Counter[Conv]], counts: Sequence[int]) -> str:
    """Microseconds a replica of the whole net, all passes, for each number of replicas."""
    whole: Counter[Conv] = Counter()
    for some in stages.values():
        whole.update(some)
    rows = []
    for way in (name for name, kind in WAYS.items() if not issubclass(kind, Product | ProductLast)):
        times = [sum(seconds_of(part["cells"], whole, m, way, what) or 0.0 for what in PASSES) / m for m in counts]
        rows.append((way, *(f"{1e6 * value:.1f}" for value in times)))
    best = []
    for m in counts:
        each = [
            n * min(passes[what]["seconds"] for passes in part["cells"][str(conv)][str(m)]["ways"].values())
            for conv, n in whole.items()
            for what in PASSES
        ]
        best.append(f"{1e6 * sum(each) / m:.1f}")
    rows.append(("the fastest for each convolution and pass", *best))
    return table(("us a replica, forward and backward", *(f"M = {m}" for m in counts)), rows)


def arguments(parser: argparse.ArgumentParser) -> None:
    """What is asked of this benchmark alone."""
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:N; auto: a GPU if there is one")
    parser.add_argument("--replicas", metavar="M,M", help="numbers of replicas")
    parser.add_argument("--batch", type=int, help="images of a replica")
    part_arguments(parser)


def main() -> None:
    """Run the benchmark."""
    given: Options = options(__doc__, threads=2, more=arguments)
    torch.set_num_threads(given.threads)
    device = choose_device(given.more.device)
    on_gpu = device.type == "cuda"
    if given.more.replicas:
        counts = [int(word) for word in given.more.replicas.split(",")]
    else:
        counts = [3, 4] if given.quick else [1, 4, 16, 40] if on_gpu else [1, 4, 16]
    batch = given.more.batch or (2 if given.quick else 100)
    rounds, budget_s = (1, 0.0) if given.quick else (6, 0.002)
    arch = hrg.load("hiresnet18").variant("full")
    stages = convolutions((arch.override({"width": 8}) if given.quick else arch).plan)
    convs = list(dict.fromkeys(conv for some in stages.values() for conv in some))

    ways = [(precision, False) for precision in (("bf16", "tf32", "fp32") if on_gpu else ("fp32", "bf16"))]
    if on_gpu:
        ways += [(precision, True) for precision, _ in ways]
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "bandwidth": lambda: {"bytes_per_s": copy_bytes_per_s(device, small=given.quick)}
    }
    for precision, searched in ways:

        def part(precision: str = precision, searched: bool = searched) -> dict[str, Any]:
            return measured(convs, counts, batch, precision, searched, device, rounds, budget_s)

        parts[f"{precision}, searched" if searched else precision] = part
    settings = {"device": device.type, "threads": given.threads, "replicas": counts, "batch": batch, "rounds": rounds}
    done, missing = results_of("conv_table", parts, settings, given)
    results, line = told(settings, done, missing)
    results["stages"] = {stage: {str(conv): n for conv, n in some.items()} for stage, some in stages.items()}
    sections = [
        f"{line}Batch {batch}, {given.threads} threads of the CPU, median of {rounds} rounds in turns. There is no "
        "target: the tables say which way is the fastest, how much of the bandwidth it has if it moves each number "
        "once (more than all where numbers stay in caches), and what is wrong with a way."
    ]
    bytes_per_s = done.get("bandwidth", {}).get("bytes_per_s", math.inf)
    for name, found in done.items():
        if name == "bandwidth":
            sections.append(f"A copy in memory moves {bytes_per_s / 1e9:.1f} GB/s, read and written.")
            continue
        sections += [
            f"## {name}",
            total_table(found, stages, counts),
            stage_table(found, stages, counts[-1], bytes_per_s),
        ]
        remarks = remarks_of(found["cells"])
        sections.append(
            "\n".join(f"- {what} in {', '.join(places)}" for what, places in remarks.items())
            or "Nothing is wrong with any of them."
        )
    finish("conv_table", "\n\n".join(sections), results, given)


if __name__ == "__main__":
    main()
