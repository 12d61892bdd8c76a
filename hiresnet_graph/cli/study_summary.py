"""A study as plain data and as text: the content of `hrg show STUDY`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hiresnet_graph.cli.console import styled, write, write_prose, write_table
from hiresnet_graph.errors import UsageError
from hiresnet_graph.formats import Column, format_bytes, format_count, format_si, format_value, number_column

if TYPE_CHECKING:
    from hiresnet_graph.sweep import Study
    from hiresnet_graph.sweep.plan import StudyPlan
    from hiresnet_graph.sweep.search_settings import SearchSettings


def summarize_study(study: Study) -> dict[str, Any]:
    """Networks, runs, recipe, data and published results of a study; of a search, its settings.

    Raises:
        SpecError: The study or one of its networks is wrong.
    """
    from hiresnet_graph.sweep.networks import networks_of
    from hiresnet_graph.sweep.plan import make_plan
    from hiresnet_graph.sweep.search_space import SearchSpace
    from hiresnet_graph.train.memory import training_memory

    source = study.data_source()
    data: dict[str, Any] = {
        "name": study.name or study.base().name,
        "description": study.description,
        "network": study.base().title,
        "changes": dict(study.changes),
        "data": str(source),
        "recipe": study.recipe.model_dump(mode="json", exclude_unset=True),
        "weights": study.weights,
        "seeds": [seeds._asdict() for seeds in study.seed_pairs],
        "published": study.published and study.published.model_dump(mode="json"),
    }
    if study.search is not None:
        SearchSpace(study, with_data=False)
        return {**data, "search": study.search.model_dump(mode="json")}
    networks = networks_of(study)
    plan = make_plan(study, networks, source, None)
    return {
        **data,
        "baseline": plan.baseline,
        "runs": len(plan.requests),
        "networks": [
            {
                "label": info.label,
                "setting": dict(info.setting),
                "parameters": info.parameters,
                "macs": info.macs,
                "training_bytes": training_memory(member.architecture.plan, member.recipe).peak_bytes,
                "edges": list(info.edges),
                "same_as": info.same_as or None,
                "weights": member.weights and member.weights.source,
                "published": _published(study, info.label, info.setting),
            }
            for info, member in zip(plan.networks, networks.members, strict=True)
        ],
    }


def trained_on(plan: StudyPlan) -> str:
    """The data and the length of all runs: `on cifar10, 80 epochs each`. Without the length if it differs."""
    lengths = {request.recipe.epochs for request in plan.requests.values()}
    return f"on {plan.data}" + (f", {format_count(lengths.pop(), 'epoch')} each" if len(lengths) == 1 else "")


def _published(study: Study, label: str, setting: Any) -> dict[str, Any] | None:
    value = None if study.published is None else study.published.value_for(label, setting)
    return None if value is None else value.model_dump(mode="json", include={"mean", "std", "n"})


def write_study(study: Study, data: dict[str, Any]) -> None:
    """Print the summary of a study."""
    write(f"{styled(data['name'], 'bold', sys.stdout)}  {data['description']}".rstrip())
    changes = "".join(f" {key}={format_value(value)}" for key, value in data["changes"].items())
    write(f"network  {data['network']}{changes}")
    write(f"data     {data['data']}")
    recipe = ", ".join(f"{key} {format_value(value)}" for key, value in data["recipe"].items())
    write(f"recipe   {recipe or 'defaults'}")
    if data["weights"] is not None:
        write(f"weights  {data['weights']}")
    nouns = ("seed", "seeds") if isinstance(study.seeds, int | tuple) else ("pair of seeds", "pairs of seeds")
    seeds = format_count(len(data["seeds"]), *nouns)
    if study.search is not None:
        write(f"search   {_described(study.search)}")
        return
    write(
        f"runs     {format_count(data['runs'], 'run')}, {seeds} for each network; baseline {data['baseline'] or '-'}\n"
    )
    _write_networks(data)
    for sentence in study.published.sentences() if study.published is not None else ():
        write()
        write_prose(sentence)


def _described(search: SearchSettings) -> str:
    space = ", ".join(f"{key} {format_value(value)}" for key, value in search.model_dump(mode="json")["space"].items())
    return f"{search.sampler}, up to {format_count(search.runs, 'run')}, for {', '.join(search.objectives)}: {space}"


def _write_networks(data: dict[str, Any]) -> None:
    settings = list(dict.fromkeys(key for row in data["networks"] for key in row["setting"]))
    has_weights = any(row["weights"] for row in data["networks"])
    columns = [
        Column("variant"),
        *(Column(key) for key in settings),
        number_column("parameters"),
        number_column("MACs", 3),
        number_column("training", 4),
        number_column("edges", 4),
        *([number_column("published, %")] if data["published"] else []),
        *([Column("starts from")] if has_weights else []),
    ]
    rows = []
    for row in data["networks"]:
        label = f"{row['label']} (= {row['same_as']})" if row["same_as"] else row["label"]
        cells = [label, *(format_value(row["setting"].get(key, "-")) for key in settings)]
        cells += [f"{row['parameters']:,}", format_si(row["macs"]), format_bytes(row["training_bytes"])]
        cells.append(str(len(row["edges"])))
        cells += [_accuracy(row["published"])] if data["published"] else []
        rows.append([*cells, *([row["weights"] or "random weights"] if has_weights else [])])
    write_table(columns, rows)
    write_prose("Training is the estimated memory of a training step of one run.")


def _accuracy(value: dict[str, Any] | None) -> str:
    """A published accuracy: `89.15 (0.31), n 5`."""
    if value is None:
        return "-"
    std = "" if value["std"] is None else f" ({value['std']:.2f})"
    return f"{value['mean']:.2f}{std}" + (f", n {value['n']}" if value["n"] is not None else "")


def refuse_changes(study: str, given: Mapping[str, object]) -> None:
    """Refuse options of networks beside a study.

    Raises:
        UsageError: One of them is given.
    """
    for name, value in given.items():
        if value:
            raise UsageError(f"'{study}' is a study, which takes no {name}. Write it into the file, or omit it.")
