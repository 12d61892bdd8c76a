"""The training program: one network, one data set, one seed, one thread of the CPU, the same bits every time.

Axes: N images of the data set, B images of a batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import hashlib
import math
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors.torch import save
from torch import nn
from torch.nn.functional import cross_entropy

from hiresnet_graph.architecture import Architecture
from hiresnet_graph.data import load_dataset
from hiresnet_graph.data.dataset import Dataset
from hiresnet_graph.errors import RunError, UsageError
from hiresnet_graph.plan import Plan
from hiresnet_graph.shapes import Map, Vector
from hiresnet_graph.train.recipe import Recipe
from hiresnet_graph.train.record import RESULT, Epoch, Machine, RunRecord, make_folder, run_key, write_atomic

_EVALUATION_BATCH = 500


def train(
    arch: Architecture,
    *,
    out: Path | str,
    data: str | Dataset = "digits",
    recipe: Recipe | None = None,
    seed: int = 0,
    label: str = "",
    progress: Callable[[Epoch], None] | None = None,
) -> RunRecord:
    """Train a network and write its record, its spec and the weights of its best epoch.

    Test images are seen after training only: with the weights of the best validation epoch, and with the last ones.

    Args:
        out: Folder of the run; a finished run in it is replaced.
        data: Name of a data set, or one in memory. Its images are brought to the shape of the network's input.
        recipe: The protocol of the paper, if left out.
        seed: Of the initial weights, the order of the images and dropout: three streams, one number.
        label: What the record calls the variant; the chosen variant of the spec, if left out.
        progress: Called after each epoch.

    Raises:
        SpecError: The spec is wrong.
        UsageError: Network and data do not go together.
        RunError: A file cannot be written, or a batch cannot be computed.
    """
    recipe = recipe or Recipe()
    folder = make_folder(Path(out))
    dataset = fit(load_dataset(data) if isinstance(data, str) else data, arch.plan)
    start = time.perf_counter()
    with _one_thread(), torch.random.fork_rng(devices=[]):
        run = _Run(arch.build(seed), dataset, recipe, seed)
        run.train(progress)
    time_s = time.perf_counter() - start
    cost = arch.cost()
    plan, fingerprint = arch.plan.digest(), dataset.fingerprint()
    record = RunRecord(
        key=run_key(plan, recipe, seed, fingerprint),
        architecture=arch.name,
        variant=label or arch.chosen or "",
        seed=seed,
        data=dataset.name,
        data_fingerprint=fingerprint,
        recipe=recipe,
        plan=plan,
        parameters=cost.parameters,
        macs=cost.macs,
        outcome="complete" if run.diverged_at is None else "diverged",
        diverged_at=run.diverged_at,
        best_epoch=run.best.epoch if run.best else None,
        validation_accuracy=run.best.validation_accuracy if run.best else None,
        test_accuracy=run.test_accuracy,
        last_test_accuracy=run.last_test_accuracy,
        epochs=tuple(run.epochs),
        machine=_machine(time_s),
    )
    (folder / RESULT).unlink(missing_ok=True)
    write_atomic(folder / "spec.yaml", arch.to_yaml().encode())
    if record.outcome == "complete":
        write_atomic(folder / "model.safetensors", save(run.best_weights))
    write_atomic(folder / RESULT, (record.model_dump_json(indent=2) + "\n").encode())
    return record


def fit(dataset: Dataset, plan: Plan) -> Dataset:
    """The data set with images of the shape that a network takes.

    Raises:
        UsageError: The network does not take one image and give one score for each class.
    """
    shapes = list(plan.inputs.values())
    if len(shapes) != 1 or not isinstance(shapes[0], Map):
        raise UsageError(
            f"'{plan.name}' takes {', '.join(f'{name} ({shape})' for name, shape in plan.inputs.items())}; "
            "training wants one input of channels x height x width."
        )
    scores = [call.shape for call in plan.calls if call.name in plan.outputs.values()]
    if scores != [Vector(dataset.classes)]:
        raise UsageError(
            f"'{plan.name}' gives {', '.join(str(shape) for shape in scores)}, but data '{dataset.name}' has "
            f"{dataset.classes} classes: training wants one output of {dataset.classes} values. "
            "Set the number of classes of the last layer."
        )
    return dataset.fitted_to(shapes[0])


class _Run:
    """A run in progress, and what it has found so far."""

    def __init__(self, module: nn.Module, dataset: Dataset, recipe: Recipe, seed: int) -> None:
        self.module, self.dataset, self.recipe, self.seed = module, dataset, recipe, seed
        self.optimizer = torch.optim.Adam(module.parameters(), lr=recipe.lr)
        self.places = {part: torch.tensor(places) for part, places in dataset.split._asdict().items()}
        self.step = 0
        self.epochs: list[Epoch] = []
        self.best: Epoch | None = None
        self.best_weights: dict[str, torch.Tensor] = {}
        self.diverged_at: int | None = None
        self.test_accuracy: float | None = None
        self.last_test_accuracy: float | None = None

    def train(self, progress: Callable[[Epoch], None] | None) -> None:
        for number in range(1, self.recipe.epochs + 1):
            train_loss = self._pass(number)
            loss, accuracy = self._evaluate("validation") if math.isfinite(train_loss) else (math.nan, 0.0)
            if not math.isfinite(loss):
                self.best, self.best_weights, self.diverged_at = None, {}, self.step
                return
            epoch = Epoch(
                epoch=number,
                lr=self.recipe.lr_at(number),
                train_loss=train_loss,
                validation_loss=loss,
                validation_accuracy=accuracy,
            )
            self.epochs.append(epoch)
            if self.best is None or _merit(epoch) > _merit(self.best):
                self.best = epoch
                self.best_weights = {name: value.clone() for name, value in self.module.state_dict().items()}
            if progress is not None:
                progress(epoch)
        _, self.last_test_accuracy = self._evaluate("test")
        self.module.load_state_dict(self.best_weights)
        _, self.test_accuracy = self._evaluate("test")

    def _pass(self, epoch: int) -> float:
        """Train on each image once; the mean loss, or the first one that is not finite."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.lr_at(epoch)
        places_N = self.places["train"]
        order_N = places_N[torch.randperm(len(places_N), generator=_generator(self.seed, "order", epoch))]
        # Dropout draws from the global stream, which is set anew for each epoch.
        torch.manual_seed(_number(self.seed, "noise", epoch))
        self.module.train()
        total = 0.0
        for places_B in torch.split(order_N, self.recipe.batch_size):
            self.step += 1
            x_BCHW, labels_B = self.dataset.batch(places_B)
            try:
                loss = cross_entropy(self.module(x_BCHW), labels_B)
            except ValueError as error:  # batch norm of one value per channel
                raise RunError(
                    f"seed {self.seed}, step {self.step}: a batch of {len(labels_B)} cannot be computed: {error}. "
                    "Choose another batch size."
                ) from error
            value = loss.item()
            if not math.isfinite(value):
                return value
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            total += value * len(labels_B)
        return total / len(places_N)

    @torch.no_grad()
    def _evaluate(self, part: str) -> tuple[float, float]:
        """Mean loss and accuracy over one part of the data."""
        self.module.eval()
        places_N = self.places[part]
        total, right = 0.0, 0
        for places_B in torch.split(places_N, _EVALUATION_BATCH):
            x_BCHW, labels_B = self.dataset.batch(places_B)
            logits_BK = self.module(x_BCHW)
            total += cross_entropy(logits_BK, labels_B, reduction="sum").item()
            right += int((logits_BK.argmax(1) == labels_B).sum())
        return total / len(places_N), right / len(places_N)


def _merit(epoch: Epoch) -> tuple[float, float]:
    return epoch.validation_accuracy, -epoch.validation_loss


def _number(seed: int, stream: str, epoch: int) -> int:
    """A number for one use of chance: streams differ by name, so that a new one changes no other."""
    digest = hashlib.blake2b(f"{seed}/{stream}/{epoch}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def _generator(seed: int, stream: str, epoch: int) -> torch.Generator:
    return torch.Generator().manual_seed(_number(seed, stream, epoch))


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread for torch, because sums over several threads depend on how many there are."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _machine(time_s: float) -> Machine:
    return Machine(
        time_s=round(time_s, 3),
        device="cpu",
        threads=1,
        platform=f"{platform.system()} {platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        python=platform.python_version(),
        torch=torch.__version__,
        hiresnet_graph=version("hiresnet-graph"),
    )
