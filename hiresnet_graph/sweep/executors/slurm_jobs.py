"""The jobs of a Slurm cluster: options, submission through submitit, and which of them are in the queue."""

from __future__ import annotations

import getpass
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from hiresnet_graph.errors import MissingToolError, UsageError
from hiresnet_graph.sweep.executors.local import worker_environment

# Time before the time limit of a job at which its run is requested to save.
SAVE_S = 60
# States of jobs that have ended, and what users can do.
ENDED = {
    "BOOT_FAIL": "",
    "CANCELLED": "",
    "COMPLETED": "",
    "DEADLINE": "",
    "FAILED": "",
    "NODE_FAIL": "",
    "OUT_OF_MEMORY": "Request more memory, as with '--slurm mem=8G'.",
    "PREEMPTED": "",
    "TIMEOUT": "The run was not saved before the end of its time limit. Set more, as with '--slurm time=60'.",
}
_GPU_OPTIONS = {"gres", "gpus", "gpus-per-node", "gpus-per-task"}
_OWN_OPTIONS = {
    "array": "'--jobs' sets the number of jobs",
    "job-name": "the name shows which jobs belong to the study",
    "output": "logs are in the folder of the study",
    "error": "logs are in the folder of the study",
    "open-mode": "logs are in the folder of the study",
    "nodes": "a worker is one process on one node",
    "ntasks": "a worker is one process on one node",
    "ntasks-per-node": "a worker is one process on one node",
    "cpus-per-task": "'--threads' sets the CPUs of a worker",
    "signal": f"workers expect it {SAVE_S} s before the time limit",
    "requeue": "jobs are always requeued",
    "no-requeue": "jobs are always requeued",
}


class Jobs(Protocol):
    """Jobs that a scheduler starts, each of them a worker."""

    def submit(self, serve: Callable[[str], None], slots: Sequence[str]) -> list[str]:
        """Submit a job for each slot, which calls `serve` with it; returns their ids."""
        ...

    def states(self) -> Mapping[str, str] | None:
        """State of each job that waits, runs or has just ended, by id; None if the scheduler does not answer now."""
        ...

    def cancel(self, ids: Sequence[str]) -> None:
        """Cancel jobs; those that have ended are ignored."""
        ...

    def logs(self, job: str) -> Path:
        """Pattern of the log files of a job."""
        ...


def parse_slurm_options(text: str) -> dict[str, str]:
    """The options of `sbatch` in a text like `partition=gpu,time=60,gres=gpu:1`.

    Raises:
        UsageError: The text has another form, or an option is chosen by `hrg`.
    """
    found: dict[str, str] = {}
    for part in re.split(r",(?=\s*[A-Za-z][\w-]*=)", text):
        name, is_given, value = (word.strip() for word in part.partition("="))
        name = name.replace("_", "-")
        if not is_given or not value or not re.fullmatch(r"[A-Za-z][\w-]*", name) or "\n" in value:
            raise UsageError(
                f"slurm: must be options of sbatch like 'partition=gpu,time=60,gres=gpu:1', not '{part[:60]}'."
            )
        if name in _OWN_OPTIONS:
            raise UsageError(f"slurm: '{name}' cannot be set: {_OWN_OPTIONS[name]}. Leave it out.")
        if name in found:
            raise UsageError(f"slurm: '{name}' is set twice. Leave one out.")
        found[name] = value
    if 0 < _time_s(found.get("time", "0")) < 3 * SAVE_S:  # 0: no limit
        raise UsageError(
            f"slurm: time={found['time']} is too short: a worker saves its run {SAVE_S} s before the end, and "
            "loads torch and the data first. Set 3 minutes or more."
        )
    return found


def _time_s(text: str) -> int:
    """Seconds of a time limit as `sbatch` reads it, like `90`, `1:30`, `2:00:00` or `1-12`; 0 for another text.

    Source: the manual page of sbatch, `--time`.
    """
    form = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text)
    if form is None:
        return 0
    days, *parts = form.groups()
    numbers = [int(part) for part in parts if part is not None]
    # After days the first number is hours; alone it is minutes.
    units = (60, 1) if days is None and len(numbers) < 3 else (3600, 60, 1)
    return 86400 * int(days or 0) + sum(unit * number for unit, number in zip(units, numbers, strict=False))


class SlurmJobs:
    """Jobs of this user on the Slurm cluster of this machine.

    Args:
        folder: Folder of scripts and logs, on a file system that all nodes see.
        name: Name of the jobs, by which they are found again.
        options: Options of `sbatch`.
        threads: CPUs per job.
        gpus: GPUs per job, unless the options request some.

    Raises:
        MissingToolError: submitit is not installed, or this machine has no Slurm.
    """

    def __init__(self, folder: Path, name: str, options: Mapping[str, str], *, threads: int = 1, gpus: int = 0) -> None:
        try:
            import submitit
        except ImportError:
            raise MissingToolError(
                "the executor 'slurm' needs the package submitit. Install: python -m pip install submitit."
            ) from None
        missing = [tool for tool in ("sbatch", "squeue", "scancel", "srun") if shutil.which(tool) is None]
        if missing:
            raise MissingToolError(
                f"the executor 'slurm' needs '{missing[0]}', which is not on this machine. Run the command on a login "
                "node of the cluster, or choose the executor 'local'."
            )
        self._folder, self._name = folder, name
        self._executor: Any = submitit.SlurmExecutor(folder)
        own: dict[str, Any] = {"time": None, "wckey": None}  # instead of the defaults of submitit
        if gpus and not _GPU_OPTIONS & options.keys():
            own["gpus_per_node"] = gpus
        variables = " ".join(f"{key}={value}" for key, value in worker_environment("cpu", threads).items())
        self._executor.update_parameters(
            **own,
            job_name=name,
            cpus_per_task=threads,
            signal_delay_s=SAVE_S,
            stderr_to_stdout=True,
            array_parallelism=10_000,
            setup=[f"export {variables}"],
            srun_args=[f"--cpus-per-task={threads}"],
            additional_parameters={"requeue": True, **options},
        )

    def submit(self, serve: Callable[[str], None], slots: Sequence[str]) -> list[str]:
        """Submit a job for each slot, several as an array, which calls `serve` with it; returns their ids.

        Raises:
            UsageError: Slurm refuses the options.
        """
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        try:
            return [job.job_id for job in self._executor.map_array(serve, slots)]
        except (FailedJobError, FailedSubmissionError, subprocess.CalledProcessError) as error:
            lines = [line.strip() for line in str(error).splitlines() if "error:" in line or "unrecognized" in line]
            reason = lines[0].removeprefix("sbatch: ").removeprefix("error: ") if lines else str(error)
            raise UsageError(
                f"slurm: sbatch refuses the job: {reason.rstrip('.')}. Change the options of '--slurm'; 'sinfo' lists "
                "the partitions, 'sbatch --help' the options."
            ) from error

    def states(self) -> Mapping[str, str] | None:
        """State of each job that waits, runs or has just ended, by id; None if Slurm does not answer now."""
        which = [f"--user={getpass.getuser()}", f"--name={self._name}", "--states=all"]
        command = ["squeue", *which, "--array", "--noheader", "--format=%i %T"]
        try:
            result = subprocess.run(command, capture_output=True, text=True, timeout=60)
        except (OSError, subprocess.TimeoutExpired):
            return None
        if result.returncode:
            return None
        return dict(line.split(maxsplit=1) for line in result.stdout.splitlines() if len(line.split()) == 2)

    def cancel(self, ids: Sequence[str]) -> None:
        """Cancel jobs; those that have ended are ignored."""
        if ids:
            with suppress(OSError, subprocess.TimeoutExpired):  # it would hide what ends the study
                subprocess.run(["scancel", "--quiet", *ids], capture_output=True, timeout=60)

    def logs(self, job: str) -> Path:
        """Pattern of the log files of a job."""
        return self._folder / f"{job}_*_log.out"
