"""Studies with accuracies that are easy to check, without training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from hiresnet_graph.sweep.database import State
from hiresnet_graph.sweep.results import NetworkInfo, Results, RunRow
from hiresnet_graph.train import Environment, Epoch, Recipe, RunRecord
from hiresnet_graph.train.record import Seeds

RECIPE = Recipe(epochs=2, batch_size=50, lr=0.003)
MACHINE = Environment(
    device="cpu",
    threads=1,
    channels_last=True,
    backend="eager",
    platform="Linux x86_64",
    python="3.11.9",
    torch="2.14.1",
    hiresnet_graph="0.1.0",
    commit="0123456789abcdef",
)

Ending = float | Literal["waiting", "running", "diverged", "failed", "pruned"]


@dataclass(frozen=True)
class Net:
    """A network and its runs.

    Attributes:
        tests: For each seed from 0 on the test accuracy in percent, or how else the run ended.
        validations: Validation accuracies in percent; those of the test if left out.
    """

    label: str
    tests: Sequence[Ending]
    validations: Sequence[float] | None = None
    setting: Mapping[str, object] = field(default_factory=dict)
    edges: tuple[str, ...] = ()
    parameters: int = 1000
    macs: int = 5_000_000
    same_as: str = ""
    isomorphic_to: str = ""
    machine: Environment = MACHINE


def study(*nets: Net, **fields: Any) -> Results:
    """A study of these networks."""
    networks, rows = [], []
    for i, net in enumerate(nets):
        network = NetworkInfo(
            label=net.label,
            setting=net.setting,
            plan=net.same_as or net.label,
            parameters=net.parameters,
            macs=net.macs,
            edges=net.edges,
            same_as=net.same_as,
            isomorphic_to=net.isomorphic_to,
        )
        networks.append(network)
        for seed, ending in enumerate(net.tests):
            validation = net.validations[seed] if net.validations else ending
            rows.append(_row(i, network, Seeds(seed, seed), ending, validation, net.machine))
    given = {"name": "skips", "architecture": "tiny", "data": "digits", "baseline": None, **fields}
    return Results(recipe=RECIPE.model_dump(mode="json"), networks=tuple(networks), rows=tuple(rows), **given)


def _row(
    i: int, network: NetworkInfo, seeds: Seeds, ending: Ending, validation: Ending, machine: Environment
) -> RunRow:
    key = f"{network.plan}-{sorted(network.setting.items())}-{seeds}"
    if isinstance(ending, str) and ending in ("waiting", "running", "failed", "pruned"):
        return RunRow(i, seeds, key, ending, 1, None)
    state: State = ending if isinstance(ending, str) else "complete"
    seen: dict[str, Any] = {}
    if not isinstance(ending, str):
        assert not isinstance(validation, str)
        seen = {
            "best_epoch": 1,
            "validation_accuracy": validation / 100,
            "test_accuracy": ending / 100,
            "test_top_k": 0.99,
            "last_test_accuracy": ending / 100 - 0.01,
            "last_test_top_k": 0.98,
        }
    record = RunRecord(
        key=key,
        architecture="tiny",
        variant=network.label,
        seeds=seeds,
        data="digits",
        data_fingerprint="f",
        recipe=RECIPE.model_copy(update={"augment": "none"}),
        plan=network.plan,
        parameters=network.parameters,
        macs=network.macs,
        outcome=state,
        epochs=tuple(_epoch(epoch, diverged=state == "diverged" and epoch == 2) for epoch in (1, 2)),
        machine=machine,
        time_s=1.0,
        **seen,
    )
    return RunRow(i, seeds, key, state, 1, record)


def _epoch(epoch: int, diverged: bool) -> Epoch:
    return Epoch(
        epoch=epoch,
        lr=0.003,
        train_loss=float("nan") if diverged else 1 / epoch,
        train_accuracy=0.25 * epoch,
        validation_loss=2 / epoch,
        validation_accuracy=0.125 * epoch,
        validation_top_k=0.5,
        time_s=1.0,
    )
