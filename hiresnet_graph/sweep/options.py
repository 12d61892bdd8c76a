"""What a caller may request about the execution of runs, and the executor for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hiresnet_graph.errors import UsageError, did_you_mean
from hiresnet_graph.formats import format_count
from hiresnet_graph.sweep.execution import ExecutionPlan, WorkerLayout
from hiresnet_graph.sweep.executors import Executor, LocalExecutor
from hiresnet_graph.sweep.executors.slurm_jobs import parse_slurm_options
from hiresnet_graph.sweep.resources import available_cores, device_kind, local_devices
from hiresnet_graph.train.request import MAX_THREADS

EXECUTORS = ("local", "ray", "slurm")
MAX_WORKERS, MAX_STACK = 10_000, 10_000
AUTO, OFF = "auto", "off"
# Jobs of a study at one time, unless another number is requested.
SLURM_JOBS = 16
_NAMES = {"ray": "Ray", "slurm": "Slurm"}


@dataclass(frozen=True)
class ExecutionOptions:
    """What is requested about the execution of runs; None leaves a choice open.

    Attributes:
        executor: `local` (processes of this machine), `ray`, `slurm`, or an executor.
        jobs: Number of workers (default: one for each GPU, or as many as there are cores for their threads; 16 jobs of
            Slurm).
        device: `cpu`, `cuda` (all GPUs), `cuda:1`; or `auto`: that of the resumed study, else GPUs if there are any.
        threads: CPU threads per worker (default: 1); another number rounds differently.
        stack: Maximum number of runs that one program computes together: networks that differ in edges only, with any
            seeds and learning rates. `off` computes each run by itself, the default of a new study; a resumed study
            keeps its backend. `auto` measures some execution plans on this machine and takes the fastest, with another
            number of threads if none is given; short studies are not stacked. Stacked results differ from those of
            `off` by rounding, as those of another number of threads do; the size of a stack changes no bit.
        address: Address of a Ray cluster.
        slurm: Options of `sbatch` for the jobs of Slurm, like `partition=gpu,time=60,gres=gpu:1`.
    """

    executor: str | Executor = "local"
    jobs: int | None = None
    device: str = "auto"
    threads: int | None = None
    stack: int | str | None = None
    address: str | None = None
    slurm: str | None = None

    def check(self) -> None:
        """Check all options that can be checked without a study.

        Raises:
            UsageError: An option is wrong, or two contradict each other.
        """
        for name, number, most in (("jobs", self.jobs, MAX_WORKERS), ("threads", self.threads, MAX_THREADS)):
            if number is not None and not 1 <= number <= most:
                raise UsageError(f"{name}: must be a number from 1 to {most:,}, not {number}.")
        if isinstance(self.executor, str) and self.executor not in EXECUTORS:
            raise UsageError(f"there is no executor '{self.executor}'. {did_you_mean(self.executor, EXECUTORS)}")
        if self.address is not None and self.executor in ("local", "slurm"):
            raise UsageError(
                f"address '{self.address}' belongs to a Ray cluster. Choose the executor 'ray', or leave it out."
            )
        if self.slurm is not None:
            if self.executor != "slurm":
                raise UsageError(f"slurm: '{self.slurm}' requires the executor 'slurm'. Choose that, or leave it out.")
            parse_slurm_options(self.slurm)
        if (self.stack_size or 1) > 1 and self.cluster:
            raise UsageError(f"stack: {self._not_stacked} Leave it out, or choose the executor 'local'.")

    @property
    def cluster(self) -> str:
        """Name of the requested kind of cluster; empty for another executor."""
        return _NAMES.get(self.executor, "") if isinstance(self.executor, str) else ""

    @property
    def _not_stacked(self) -> str:
        return f"workers of a {self.cluster} cluster compute each run by itself."

    @property
    def stack_size(self) -> int | None:
        """The requested size of stacks: 1 for `off` and by default, None for `auto`.

        Raises:
            UsageError: It is neither of these nor a number of 2 or more.
        """
        if self.stack == AUTO:
            return None
        if self.stack is None or self.stack == OFF:
            return 1
        text = str(self.stack)
        number = int(text) if text.isdecimal() and len(text) <= len(str(MAX_STACK)) else 0
        if not 2 <= number <= MAX_STACK:
            expected = f"'auto', 'off' or a number of runs (2 to {MAX_STACK:,})"
            raise UsageError(f"stack: must be {expected}, not '{text[:40]}'.")
        return number

    def devices(self, frozen: ExecutionPlan | None = None) -> tuple[str, ...]:
        """The requested devices; on a cluster, `cuda` is the GPU of each worker.

        Args:
            frozen: The plan of the resumed study, whose device is the default.

        Raises:
            UsageError: There is no such device.
        """
        device = self.device
        if self.cluster and device.startswith("cuda"):
            if device != "cuda":
                raise UsageError(f"device '{device}': {self.cluster} assigns the GPUs of its workers. Write 'cuda'.")
            return ("cuda",)
        devices = local_devices(device)
        if device == AUTO and frozen is not None and frozen.device != device_kind(devices):
            if frozen.device == "cpu":
                return local_devices("cpu")
            if self.cluster:
                return ("cuda",)
        return devices  # `refusal` says that there is no GPU for a study that was started on one

    def workers(self, devices: tuple[str, ...], threads: int, runs: int | None = None) -> int:
        """The number of workers on this machine, or the largest number of Slurm jobs at one time.

        Args:
            runs: Number of runs to train; no more workers are started.
        """
        room = len(devices) if device_kind(devices) == "cuda" else max(1, available_cores() // threads)
        room = SLURM_JOBS if self.executor == "slurm" else room
        number = self.jobs or room
        return max(1, number if runs is None else min(number, runs))

    def describe_workers(self, number: int) -> str:
        """The number of workers in words, where `workers` gives this number."""
        if self.executor == "slurm":
            return f"Up to {format_count(number, 'Slurm job')} at one time"
        if self.executor == "ray":
            return "As many workers as the Ray cluster has room for" + (f", up to {number}" if self.jobs else "")
        return format_count(number, "worker")

    def layouts(self, devices: tuple[str, ...], runs: int) -> tuple[WorkerLayout, ...]:
        """The possible layouts, the default one first."""
        numbers = [self.threads or 1]
        if self.threads is None and device_kind(devices) == "cpu":
            numbers.append(max(1, available_cores() // (self.jobs or 1)))
        return tuple(dict.fromkeys(WorkerLayout(self.workers(devices, number, runs), number) for number in numbers))

    def refusal(self, frozen: ExecutionPlan | None, devices: tuple[str, ...]) -> str:
        """Why a study with a frozen plan cannot be resumed with these options; empty if it can."""
        if frozen is None:
            return ""
        if (kind := device_kind(devices)) != frozen.device:
            is_missing = frozen.device == "cuda" and self.device == AUTO and self.executor == "local"
            where = (
                "on a machine with a GPU (torch finds none here)" if is_missing else f"with '--device {frozen.device}'"
            )
            return (
                f"this study was started on '{frozen.device}', and '{kind}' rounds differently. Resume it {where}, or "
                "choose another folder."
            )
        if self.cluster and frozen.backend != "eager":
            return f"{self._not_stacked} Resume it with the executor 'local'."
        return ""

    def make_executor(
        self, devices: tuple[str, ...], threads: int, folder: Path | str, tasks: int | None = None
    ) -> Executor:
        """The executor, as a context manager that starts its workers.

        Args:
            folder: Folder of the study.
            tasks: Number of tasks; no more local workers or Slurm jobs are started.
        """
        if not isinstance(self.executor, str):
            return self.executor
        if self.executor == "ray":
            from hiresnet_graph.sweep.executors.ray import RayExecutor

            gpus = 1.0 if device_kind(devices) == "cuda" else 0.0
            return RayExecutor(self.address, workers=self.jobs, threads=threads, gpus=gpus)
        if self.executor == "slurm":
            from hiresnet_graph.sweep.executors.slurm import SlurmExecutor

            return SlurmExecutor(
                Path(folder),
                parse_slurm_options(self.slurm) if self.slurm else {},
                workers=self.workers(devices, threads, tasks),
                threads=threads,
                gpus=int(device_kind(devices) == "cuda"),
            )
        return LocalExecutor(self.workers(devices, threads, tasks), devices=devices, threads=threads)


def resume_execution(
    frozen: ExecutionPlan | None,
    requested: ExecutionPlan,
    options: ExecutionOptions,
    devices: tuple[str, ...],
    runs: int,
) -> tuple[ExecutionPlan, str]:
    """The requested plan, or the frozen one of a resumed study and a sentence about settings that were not applied."""
    if frozen is None:
        return requested, ""
    resumed, message = frozen.reconciled(requested)
    layout = WorkerLayout(options.workers(devices, resumed.threads, runs), resumed.threads)
    return resumed.using(layout, resumed.backend, resumed.stack), message
