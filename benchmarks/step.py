"""How long one training step takes: forward, loss and backward, in train mode, without an optimizer.

    python -m benchmarks.step [--quick] [--json FILE] [--threads N] [--networks NAME ...]

Compiled networks against the same ones written by hand: `resnet50` (batch 4 at 224x224) against torchvision's, and
`hiresnet18` with all skips (batch 100 at 32x32) against `benchmarks/handwritten.py`; `vit_tiny` (batch 2 at 224x224)
against timm's, and `hiresvit_tiny` with all skips (batch 8 at 32x32) against `benchmarks/handwritten.py`. Weights are
copied, and outputs must be equal bit for bit, in train and eval mode, before anything is timed. A second pair shows
what it costs that a compiled network is nested, a module for each node and block: against the same code without modules
in between, as `torch.fx` traces it. The target is for CPU
time, which other programs disturb less. One thread unless told otherwise: with more, a busy machine is
measured rather than the network.

Memory is told twice: what autograd keeps for the backward pass (exact), and by how much the resident size of a fresh
process grows from the built network to the end of two steps.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision.models
from torch import fx, nn
from torch.nn.functional import cross_entropy

import hiresnet_graph as hrg
from benchmarks.handwritten import HiResNet18, HiResViT
from benchmarks.measure import Options, Pair, finish, in_turns, mebibytes, options, ratio_row, table, verdict

TARGET = 1.02
_PEAK = "--peak-of"


@dataclass(frozen=True)
class Case:
    """A network, compiled and by hand.

    Attributes:
        renames: Patterns of names in our `state_dict` -> what they are in the other, in this order.
        rounds: Times that each is run.
    """

    name: str
    by_hand: str
    theirs: Callable[[], nn.Module]
    renames: tuple[tuple[str, str], ...]
    batch: int
    size: int
    classes: int
    rounds: int

    def ours(self) -> nn.Module:
        """The compiled network."""
        return hrg.load(self.name).build()

    def data(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Images and labels."""
        random = torch.Generator().manual_seed(0)
        images = torch.randn(self.batch, 3, self.size, self.size, generator=random)
        return images, torch.randint(self.classes, (self.batch,), generator=random)


def cases(quick: bool, names: Collection[str] = ()) -> tuple[Case, ...]:
    """What is measured: all, or the named networks."""
    blocks = tuple((rf"block{i}\.", f"{i - 1}.") for i in range(1, 10))
    norms = (r"\bnorm(\d)", r"bn\1")
    resnet = (
        (r"stem\.conv", "conv1"),
        (r"stem\.norm", "bn1"),
        (r"stage(\d)", r"layer\1"),
        *blocks,
        norms,
        (r"shortcut\.conv", "downsample.0"),
        (r"shortcut\.norm", "downsample.1"),
        (r"head\.linear", "fc"),
    )
    hiresnet = (
        (r"stem\.", ""),
        *blocks,
        norms,
        (r"(stage1.*shortcut)\.norm", r"\1"),
        (r"shortcut\.conv", "shortcut.0"),
        (r"shortcut\.norm", "shortcut.1"),
        (r"edges\.stem__stage(\d)", r"skip0\1"),
        (r"edges\.stage(\d)__stage(\d)", r"skip\1\2"),
        (r"(skip\d\d)\.conv", r"\1.1"),
        (r"(skip\d\d)\.norm", r"\1.2"),
        (r"^norm", "bn"),
        (r"head\.linear", "fc"),
    )
    encoder = tuple((rf"encoder\.block{i}\.", f"blocks.{i - 1}.") for i in range(1, 13))
    heads = ((r"head\.norm", "norm"), (r"head\.linear", "head"))
    vit = (
        *encoder,
        *heads,
        (r"class_token\.weight", "cls_token"),
        (r"positions\.weight", "pos_embed"),
        (r"patches\.conv", "patch_embed.proj"),
        (r"attention\.projection", "attn.proj"),
        (r"attention\.", "attn."),
        (r"linear(\d)", r"mlp.fc\1"),
    )
    hiresvit = (
        *encoder,
        *heads,
        (r"(class_token|positions)\.weight", r"\1"),
        (r"patches\.conv", "patches"),
        (r"attention\.", ""),
    )

    def timm_vit() -> nn.Module:
        found: nn.Module = timm.create_model("vit_tiny_patch16_224")
        return found

    found = (
        Case(
            "resnet50",
            "torchvision",
            torchvision.models.resnet50,
            resnet,
            2 if quick else 4,
            32 if quick else 224,
            1000,
            2 if quick else 60,
        ),
        Case("hiresnet18", "by hand", HiResNet18, hiresnet, 4 if quick else 100, 32, 10, 2 if quick else 120),
        Case("vit_tiny", "timm", timm_vit, vit, 1 if quick else 2, 224, 1000, 2 if quick else 40),
        Case("hiresvit_tiny", "by hand", HiResViT, hiresvit, 2 if quick else 8, 32, 10, 2 if quick else 60),
    )
    return tuple(case for case in found if not names or case.name in names)


def same_network(case: Case) -> tuple[nn.Module, nn.Module]:
    """Both modules with equal weights, in train mode.

    Raises:
        AssertionError: Their outputs differ in a bit, in train or eval mode.
    """
    ours, theirs = case.ours(), case.theirs()
    shapes, weights = theirs.state_dict(), {}
    for name, tensor in ours.state_dict().items():
        for pattern, new in case.renames:
            name = re.sub(pattern, new, name)
        weights[name] = tensor.view_as(shapes[name])
    theirs.load_state_dict(weights)
    images, _ = case.data()
    with torch.no_grad():
        for training in (True, False):
            ours.train(training)
            theirs.train(training)
            assert torch.equal(ours(images), theirs(images)), f"the two '{case.name}' differ"
    return ours.train(), theirs.train()


def step_of(network: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> Callable[[], object]:
    """One step of a network; gradients are dropped first."""

    def step() -> None:
        network.zero_grad(set_to_none=True)
        cross_entropy(network(images), labels).backward()  # type: ignore[no-untyped-call]

    return step


def kept_bytes(network: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> int:
    """What autograd keeps for the backward pass, parameters and images left out; shared storage counts once."""
    outside = {
        tensor.untyped_storage().data_ptr() for tensor in (*network.parameters(), *network.buffers(), images, labels)
    }
    found: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in outside:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = cross_entropy(network(images), labels)
    total = sum(found.values())
    del loss
    return total


def peak_growth(case: Case, who: str, threads: int) -> int | None:
    """Growth of the resident size of a fresh process over two steps, in bytes, as the median of three processes.

    None where the system cannot tell.
    """
    command = [sys.executable, "-m", "benchmarks.step", _PEAK, who, case.name, str(threads)]
    runs = (subprocess.run(command, capture_output=True, text=True, check=True) for _ in range(3))
    grown = [json.loads(done.stdout.splitlines()[-1]) for done in runs]
    return None if None in grown else sorted(grown)[1]


def print_peak(who: str, name: str, threads: int) -> None:
    """Print the growth of this process over two steps of one network, as Linux tells it; `null` elsewhere."""
    torch.set_num_threads(threads)
    (case,) = (case for case in cases(quick=False) if case.name == name)
    network = case.ours() if who == "ours" else case.theirs()
    step = step_of(network.train(), *case.data())
    status = Path("/proc/self/status")
    if not status.exists():
        print("null")
        return
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = _kibibytes(status, "VmRSS")
    step()
    step()
    print(1024 * (_kibibytes(status, "VmHWM") - before))


def _kibibytes(status: Path, key: str) -> int:
    (line,) = (line for line in status.read_text().splitlines() if line.startswith(f"{key}:"))
    return int(line.split()[1])


def measured(case: Case, given: Options) -> tuple[Pair, dict[str, Any]]:
    """Times and memory of one case."""
    ours, theirs = same_network(case)
    data = case.data()
    pair = in_turns(step_of(ours, *data), step_of(theirs, *data), case.rounds, warm_up=1 if given.quick else 3)
    memory = {
        "kept_bytes": {"ours": kept_bytes(ours, *data), "by hand": kept_bytes(theirs, *data)},
        "peak_growth_bytes": {}
        if given.quick
        else {who: peak_growth(case, who, given.threads) for who in ("ours", "by hand")},
    }
    return pair, memory


def nested_pair(case: Case, given: Options) -> Pair:
    """The compiled network against its straight-line code, which calls the layers directly."""
    nested, data = case.ours().train(), case.data()
    straight = fx.symbolic_trace(nested)
    return in_turns(step_of(nested, *data), step_of(straight, *data), case.rounds, warm_up=1 if given.quick else 3)


def _more(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--networks", nargs="+", default=(), metavar="NAME", help="those to measure (default: all)")


def main() -> None:
    """Run the benchmark."""
    given = options(__doc__, more=_more)
    torch.set_num_threads(given.threads)
    rows, straight_rows, memory_rows, results = [], [], [], {}
    for case in cases(given.quick, given.more.networks):
        pair, memory = measured(case, given)
        met = verdict(pair.cpu_ratio.median, TARGET)
        rows.append(ratio_row(f"{case.name}, batch {case.batch} at {case.size}", pair, TARGET, met))
        for kind, title in (("kept_bytes", "kept for backward"), ("peak_growth_bytes", "growth of the process")):
            if memory[kind]:
                ours, theirs = memory[kind]["ours"], memory[kind]["by hand"]
                ratio = f"{ours / theirs:.3f}" if ours and theirs else "unknown"
                memory_rows.append((f"{case.name}, {title}", mebibytes(ours), mebibytes(theirs), ratio))
        nested = nested_pair(case, given)
        straight_rows.append(
            ratio_row(f"{case.name}, batch {case.batch}", nested, 1.0, verdict(nested.cpu_ratio.low, 1.0))
        )
        results[case.name] = {
            "nested": nested,
            "batch": case.batch,
            "size": case.size,
            "target": TARGET,
            "met": met,
            "pair": pair,
            **memory,
        }
    text = "\n\n".join(
        [
            f"Threads: {given.threads}. Outputs are equal bit for bit. By hand: torchvision for resnet50, "
            "timm for vit_tiny, `benchmarks/handwritten.py` for hiresnet18 and hiresvit_tiny.",
            table(("one step", "ours", "by hand", "ratio (95 %)", "of CPU time", "target", ""), rows),
            "Nested, as compiled, and straight: met where 1.00 is in the interval.",
            table(("one step", "nested", "straight", "ratio (95 %)", "of CPU time", "target", ""), straight_rows),
            table(("memory", "ours", "by hand", "ratio"), memory_rows),
        ]
    )
    finish("step", text, {"threads": given.threads, **results}, given)


if __name__ == "__main__":
    if _PEAK in sys.argv:
        print_peak(sys.argv[-3], sys.argv[-2], int(sys.argv[-1]))
    else:
        main()
