"""Record what a refactoring must not change, and compare two recordings.

    python tests/snapshot.py make OUT.json [--quick] [--only PART] [--specs FROM.json]
    python tests/snapshot.py compare BEFORE.json AFTER.json

The package that is recorded is the one that Python finds, so PYTHONPATH chooses the checkout. Before a refactoring,
record the starting commit; after each step record again with the random specs of that recording, and compare:

    git worktree add ../start COMMIT
    PYTHONPATH=../start python tests/snapshot.py make before.json
    PYTHONPATH=. python tests/snapshot.py make after.json --specs before.json
    python tests/snapshot.py compare before.json after.json

Only the public Python API, the command line and the files of a run folder are read, so that one version of this tool
can record old and new code. The parts, each of which `--only` selects:

    shipped    plan digest, source, plan as JSON, diagrams and `hrg show --json` of every variant of the shipped specs
    numbers    weights, outputs, gradients and one SGD step of the shipped specs with less than 3 M parameters
    random     digest, source and numbers of 200 random specs, 50 of them with time
    interface  the JSON Schema, the lists of kinds and data sets, and the dry runs of the shipped studies
    study      run keys, records, metrics, weights and ledger of small studies: single, stacked and searched

`--quick` records `shipped` and 40 random specs, in less than a minute on two idle cores. `compare` exits with 1 if
anything differs that is not text for people (docstrings and comments of the source, descriptions, messages); texts that
differ are listed and do not count.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

PARTS = ("shipped", "numbers", "random", "interface", "study")
LARGEST = 3_000_000
"""Parameters up to which a shipped network is run."""
RANDOM, RANDOM_IN_TIME = 150, 50
TEXTS = {"description", "message", "traceback", "remarks", "title", "summary", "markdownDescription", "help"}
"""Keys whose values are sentences for people: recorded apart from the rest."""
VOLATILE = {"time_s", "commit", "hiresnet_graph"}
"""Keys whose values differ between two runs of the same code or between commits."""
NARROW = ["width=8", "input.channels=1", "input.height=16", "input.width=16"]
STUDY = ["hiresnet18", *NARROW, "--variants", "none,full", "--seeds", "2", "--data", "digits", "--epochs", "2"]
SEARCH = """\
name: small search
network: hiresnet18
changes: {input.channels: 1, input.height: 16, input.width: 16}
search:
  space: {edges: full, width: [8], lr: {low: 0.001, high: 0.01, log: true}}
  sampler: nsga2
  objectives: [accuracy, parameters]
  runs: 3
  batch: 3
seeds: 1
data: digits
recipe: {epochs: 1}
"""


# ---------------------------------------------------------------------------------------------------------- recording


def digest(content: str | bytes) -> str:
    """The first 16 digits of the SHA-256 of a text."""
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()[:16]


def hrg(*args: str) -> str:
    """What the command prints on standard output; it must end with 0."""
    from hiresnet_graph.cli import main

    given, sys.argv = sys.argv, ["hrg", *args]
    printed, errors = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(errors):
            main()
    except SystemExit as end:
        if end.code not in (None, 0):
            raise RuntimeError(f"hrg {' '.join(args)}: exit {end.code}\n{read_back(errors)}") from None
    finally:
        sys.argv = given
    return read_back(printed)


def read_back(stream: io.TextIOWrapper) -> str:
    stream.seek(0)
    return stream.read()


def split_texts(value: Any, texts: list[str]) -> Any:
    """JSON data without what varies, its sentences moved to `texts`."""
    if isinstance(value, dict):
        kept = {}
        for key, item in value.items():
            if key in TEXTS and (isinstance(item, str) or key == "remarks"):
                texts.append(json.dumps(item))
            elif key not in VOLATILE:
                kept[key] = split_texts(item, texts)
        return kept
    if isinstance(value, list):
        return [split_texts(item, texts) for item in value]
    return value


def data_entry(text: str) -> dict[str, str]:
    """The digests of JSON data and of the sentences in it."""
    import hiresnet_graph

    texts: list[str] = []
    root = str(Path(hiresnet_graph.__file__).parent.parent)
    data = split_texts(json.loads(text.replace(root + os.sep, "")), texts)
    return {"data": digest(json.dumps(data)), "text": digest("\n".join(texts))}


def code_only(source: str) -> str:
    """The syntax tree of a module without its docstrings."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node, clean=False):
            node.body = node.body[1:] or [ast.Pass()]
    return ast.dump(tree)


def spec_folder() -> Path:
    """Of the shipped specs: beside the package in a checkout, inside it once installed."""
    import hiresnet_graph

    folder = Path(hiresnet_graph.__file__).parent
    return folder / "_specs" if (folder / "_specs").is_dir() else folder.parent / "specs"


def shipped_variants() -> Iterator[tuple[str, Any]]:
    """`name` or `name@variant`, and the architecture, of all shipped specs."""
    import hiresnet_graph

    for path in sorted(spec_folder().glob("*.yaml")):
        architecture = hiresnet_graph.load(path.stem)
        yield path.stem, architecture
        for variant in architecture.variants:
            yield f"{path.stem}@{variant}", architecture.variant(variant)


def source_entry(architecture: Any) -> dict[str, str]:
    source = architecture.source()
    return {"digest": architecture.plan.digest(), "source": digest(code_only(source)), "source text": digest(source)}


def record_shipped(folder: Path) -> dict[str, Any]:
    record: dict[str, Any] = {}
    for name, architecture in shipped_variants():
        entry: dict[str, Any] = source_entry(architecture)
        for level in ("stages", "blocks", "ops"):
            if level != "ops" or "@" not in name:
                path = architecture.render(folder / "picture.svg", level=level)
                entry[f"svg {level}"] = digest(path.read_text())
        if "@" not in name:
            json_path = architecture.export(folder / "plan.json")
            entry["plan.json"] = data_entry(json_path.read_text())
        entry["show"] = data_entry(hrg("show", name, "--json"))
        record[name] = entry
    return record


def tensor_digest(named: Any) -> str:
    """Of names, shapes, types and bytes, in order."""
    total = hashlib.sha256()
    for name, tensor in named:
        if tensor is None:
            total.update(f"{name} none".encode())
            continue
        value = tensor.detach().contiguous()
        total.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        total.update(value.numpy().tobytes())
    return total.hexdigest()[:16]


def numbers_entry(architecture: Any, batch: int = 2) -> dict[str, str]:
    """Digests of weights, outputs, gradients and the weights after a step of SGD, all in float32 on one thread."""
    import torch

    def outputs() -> list[tuple[str, Any]]:
        torch.manual_seed(0)
        result = module(*inputs)
        return list(result.items()) if isinstance(result, dict) else [("", result)]

    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(batch, *shape, generator=generator) for shape in architecture.plan.inputs.values()]
    module = architecture.build(seed=0)
    entry = {"weights": tensor_digest(module.state_dict().items())}
    with torch.no_grad():
        entry["eval outputs"] = tensor_digest((module.eval(), outputs())[1])
    values = (module.train(), outputs())[1]
    entry["train outputs"] = tensor_digest(values)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
    loss = sum((value * torch.randn(value.shape, generator=generator)).mean() for _, value in values)
    loss.backward()  # type: ignore[union-attr]
    entry["gradients"] = tensor_digest((name, weight.grad) for name, weight in module.named_parameters())
    optimizer.step()
    entry["weights after a step"] = tensor_digest(module.state_dict().items())
    return entry


def record_numbers(folder: Path) -> dict[str, Any]:
    record = {}
    for name, architecture in shipped_variants():
        cost = architecture.cost()
        if cost.parameters < LARGEST and (cost.macs < 100e6 or "@" not in name):
            record[name] = numbers_entry(architecture)
    return record


def random_specs() -> dict[str, str]:
    """Specs as YAML, drawn by the generators of the tests that stand beside this file."""
    sys.path.append(str(Path(__file__).resolve().parent.parent))
    from tests.recurrent.graphs import make as make_in_time
    from tests.strategies import make

    specs = {f"in time {seed}": make_in_time(seed).yaml for seed in range(RANDOM_IN_TIME)}
    specs |= {f"random {seed}": make(f"snapshot {seed}").yaml for seed in range(RANDOM)}
    # One of each four is in time, so that any first part has both.
    order = sorted(specs, key=lambda name: (int(name.split()[-1]) * (4 if "time" in name else 1) // 4, name))
    return {name: specs[name] for name in order}


def record_random(specs: dict[str, str]) -> dict[str, Any]:
    import hiresnet_graph

    record = {}
    for name, text in specs.items():
        architecture = hiresnet_graph.loads(text, f"{name}.yaml")
        entry: dict[str, Any] = source_entry(architecture) | numbers_entry(architecture, batch=3)
        for variant in architecture.variants:
            entry[f"@{variant}"] = source_entry(architecture.variant(variant))
        record[name] = entry
    return record


def record_interface(folder: Path) -> dict[str, Any]:
    record = {"schema": data_entry(hrg("schema"))}
    for listed in ("specs", "studies", "blocks", "projections", "datasets"):
        record[f"list {listed}"] = data_entry(hrg("list", listed, "--json"))
    for path in sorted((spec_folder() / "studies").glob("*.yaml")):
        args = ("ablate", path.stem, "--dry-run", "--no-calibrate", "--json", "-o", str(folder / "none"))
        record[f"dry run of {path.stem}"] = data_entry(hrg(*args))
    return record


def run_study(*args: str) -> None:
    """In a process of its own, as a user would."""
    done = subprocess.run(
        [sys.executable, "-m", "hiresnet_graph.cli", *args], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        raise RuntimeError(f"hrg {' '.join(args)}: exit {done.returncode}\n{done.stdout}")


def record_study(folder: Path) -> dict[str, Any]:
    (folder / "search.yaml").write_text(SEARCH)
    commands = {
        "single": ["ablate", *STUDY, "--stack", "off"],
        "stacked": ["ablate", *STUDY, "--stack", "4"],
        "search": ["search", str(folder / "search.yaml")],
    }
    record = {}
    for name, command in commands.items():
        out = folder / name
        run_study(*command, "--jobs", "1", "--threads", "1", "--device", "cpu", "-o", str(out))
        record[name] = {
            "runs": {path.name: run_entry(path) for path in sorted((out / "runs").iterdir())},
            "files": digest(" ".join(sorted(path.name for path in out.iterdir()))),
            "ledger": ledger_entry(out / "ledger.sqlite"),
            "report": data_entry(hrg("report", str(out), "--json")),
        }
    return record


def run_entry(folder: Path) -> dict[str, Any]:
    """What a run folder holds, file by file; tensors of safetensors files by content."""
    from safetensors.torch import load_file

    entry: dict[str, Any] = {"files": " ".join(sorted(path.name for path in folder.iterdir()))}
    for path in sorted(folder.iterdir()):
        if path.suffix == ".safetensors":
            entry[path.name] = tensor_digest(sorted(load_file(path).items()))
        elif path.suffix == ".json":
            entry[path.name] = data_entry(path.read_text())
            data = json.loads(path.read_text())
            entry |= {key: data[key] for key in ("key", "best_epoch", "test_accuracy") if key in data}
        elif path.suffix == ".jsonl":
            entry[path.name] = data_entry(f"[{','.join(path.read_text().splitlines())}]")
        elif path.suffix == ".yaml":
            entry[path.name] = digest(path.read_text())
    return entry


def ledger_entry(path: Path) -> dict[str, Any]:
    """The tables of a ledger: how they are declared, and their rows without times and texts."""
    entry: dict[str, Any] = {}
    connection = sqlite3.connect(path)
    for name, declared in sorted(connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'")):
        rows = connection.execute(f"SELECT * FROM {name}")
        columns = [column[0] for column in rows.description]
        content = [dict(zip(columns, row, strict=True)) for row in rows]
        for row in content:
            for key, value in row.items():
                if isinstance(value, str) and value[:1] in ("{", "["):
                    row[key] = json.loads(value)
        content.sort(key=lambda row: json.dumps(split_texts(row, [])))
        entry[name] = {"declared": digest(re.sub(r"\s+", " ", declared)), "rows": data_entry(json.dumps(content))}
    connection.close()
    return entry


def make(args: argparse.Namespace) -> int:
    import torch

    import hiresnet_graph

    torch.set_num_threads(1)
    specs = json.loads(args.specs.read_text())["specs"] if args.specs else random_specs()
    if args.quick:
        specs = dict(list(specs.items())[:40])
    folder = Path(tempfile.mkdtemp(prefix="snapshot-"))
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "shipped": lambda: record_shipped(folder),
        "numbers": lambda: record_numbers(folder),
        "random": lambda: record_random(specs),
        "interface": lambda: record_interface(folder),
        "study": lambda: record_study(folder),
    }
    chosen = args.only or (["shipped", "random"] if args.quick else PARTS)
    print(f"recording {Path(hiresnet_graph.__file__).parent}", file=sys.stderr)
    record: dict[str, Any] = {}
    try:
        for part in chosen:
            start = time.monotonic()
            record[part] = parts[part]()
            print(f"{part}: {len(record[part])} entries, {time.monotonic() - start:.0f} s", file=sys.stderr)
    finally:
        shutil.rmtree(folder)
    content = {"torch": torch.__version__, "specs": specs, "parts": record}
    args.out.write_text(json.dumps(content, indent=1) + "\n")
    return 0


# ---------------------------------------------------------------------------------------------------------- comparing


def flat(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from flat(item, (*path, key))
    else:
        yield path, value


def compare(args: argparse.Namespace) -> int:
    before, after = json.loads(args.before.read_text()), json.loads(args.after.read_text())
    if before["torch"] != after["torch"]:
        print(f"torch differs: {before['torch']} and {after['torch']}, so numbers may differ.")
    changed: list[str] = []
    texts: list[str] = []
    compared = 0
    for part in PARTS:
        if part not in before["parts"] or part not in after["parts"]:
            continue
        old, new = dict(flat(before["parts"][part])), dict(flat(after["parts"][part]))
        names = {path[0] for path in old}, {path[0] for path in new}
        if part == "random":  # a quick recording has the first of the specs
            both = {name for name in names[0] & names[1] if before["specs"][name] == after["specs"][name]}
            old, new = ({path: v for path, v in side.items() if path[0] in both} for side in (old, new))
            if not both:
                changed.append("random: the recordings have no spec in common; record with --specs")
        compared += len(old.keys() | new.keys())
        for path in sorted(old.keys() | new.keys()):
            if old.get(path) != new.get(path):
                line = f"{part}: {' / '.join(path)}: {old.get(path, '(missing)')} -> {new.get(path, '(missing)')}"
                (texts if "text" in path[-1] else changed).append(line)
    for title, lines in (("texts that differ", texts), ("DIFFERENCES", changed)):
        if lines:
            print(f"{title}: {len(lines)}")
            print("\n".join(f"  {line}" for line in lines[: args.most]))
            if len(lines) > args.most:
                print(f"  ... and {len(lines) - args.most} more (--most {len(lines)})")
    print(f"{compared} values compared, {len(changed)} differ, {len(texts)} texts differ.")
    return 1 if changed or not compared else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    making = commands.add_parser("make", help="record the package that PYTHONPATH chooses")
    making.add_argument("out", type=Path)
    making.add_argument("--quick", action="store_true", help="the parts shipped and random, with 40 random specs")
    making.add_argument("--only", action="append", choices=PARTS, help="one part (repeatable)")
    making.add_argument("--specs", type=Path, help="a recording whose random specs are used again")
    making.set_defaults(run=make)
    comparing = commands.add_parser("compare", help="list what differs between two recordings")
    comparing.add_argument("before", type=Path)
    comparing.add_argument("after", type=Path)
    comparing.add_argument("--most", type=int, default=40, help="lines that are printed (default 40)")
    comparing.set_defaults(run=compare)
    args = parser.parse_args()
    result: int = args.run(args)
    return result


if __name__ == "__main__":
    sys.exit(main())
