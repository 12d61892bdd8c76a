"""How much faster the inference form of a network is than its module in evaluation mode.

    python -m benchmarks.inference [--quick] [--json FILE]

Both compute the same images in turns, in the memory format channels-last. The second ratio is of the form in which only
norms are folded, against that in which convolutions that meet in a sum are joined, too.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

import hiresnet_graph as hrg
from benchmarks.measure import finish, in_turns, milliseconds, options, table, verdict
from hiresnet_graph.lower.inference import inference_form

TARGET = 1.0
NETWORKS = (
    ("hiresnet18", "full", 64),
    ("hiresnet18", "full", 1),
    ("hiresnet18", "original", 64),
    ("resnet50", None, 2),
)


def main() -> None:
    """Run the benchmark."""
    given = options(__doc__)
    torch.set_num_threads(given.threads)
    rounds = 2 if given.quick else 40
    rows: list[tuple[str, ...]] = []
    results: dict[str, Any] = {}
    for name, variant, batch in NETWORKS[1:2] if given.quick else NETWORKS:
        network = hrg.load(name).variant(variant)
        module = network.build().eval().to(memory_format=torch.channels_last)
        form = network.build_inference(module).to(memory_format=torch.channels_last)
        separate = inference_form(network.plan, joins=False).build(module).to(memory_format=torch.channels_last)
        (shape,) = network.plan.inputs.values()
        images = torch.randn(batch, *shape).to(memory_format=torch.channels_last)
        with torch.inference_mode():
            ours = partial(form, images)
            pair = in_turns(ours, partial(module, images), rounds)
            joins = in_turns(ours, partial(separate, images), rounds)
        label = f"{network.title}, batch {batch}"
        results[label] = {"form": pair, "joins": joins}
        ratio = pair.cpu_ratio
        rows.append(
            (
                label,
                milliseconds(pair.ours.median),
                milliseconds(pair.theirs.median),
                f"{ratio.median:.3f} ({ratio.low:.3f} to {ratio.high:.3f})",
                f"{joins.cpu_ratio.median:.3f} ({joins.cpu_ratio.low:.3f} to {joins.cpu_ratio.high:.3f})",
                f"< {TARGET:g}",
                verdict(ratio.high, TARGET),
            )
        )
    head = ("network", "form", "module", "ratio of CPU time (95 %)", "of the joins", "target", "")
    finish("inference", table(head, rows), results, given)


if __name__ == "__main__":
    main()
