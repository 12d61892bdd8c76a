"""A driver to be killed: `python -m tests.sweep.kills FOLDER WORKERS`, where FOLDER holds a pickled plan and stacks.

It prints a line for each event: state, run and epoch.
"""

import pickle
import sys
from pathlib import Path

from hiresnet_graph.sweep.executors import LocalExecutor
from hiresnet_graph.sweep.ledger import Ledger
from hiresnet_graph.sweep.training import Progress, train_all


def show(step: Progress) -> None:
    print("adopted" if step.reused else step.state, step.name, step.epoch.epoch if step.epoch else "", flush=True)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    plan, stacks = pickle.loads((folder / "plan").read_bytes())
    with Ledger.open(folder / "study") as ledger, LocalExecutor(int(sys.argv[2])) as executor:
        ledger.join(plan)
        train_all(ledger, plan.requests, executor, stacks=stacks, progress=show, retries=10)
