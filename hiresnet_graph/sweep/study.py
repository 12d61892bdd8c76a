"""The list of a study's variants and seeds, kept in its folder, so that a report and a later call know of them.

<study>/study.json
<study>/runs/<variant>-seed<k>/result.json, spec.yaml, model.safetensors
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from hiresnet_graph.errors import RunError
from hiresnet_graph.train.recipe import Recipe

STUDY = "study.json"


class StudyVariant(BaseModel):
    """A variant as the study keeps it.

    Attributes:
        plan: Hash of the compiled network.
        runs_as: Label of the variant whose runs it shares, because the networks are equal; else its own label.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: str
    edges: str | None
    group: str | None
    plan: str
    parameters: int
    runs_as: str


class Study(BaseModel):
    """What is compared, and with what settings."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    architecture: str
    data: str
    data_fingerprint: str
    recipe: Recipe
    seeds: tuple[int, ...]
    variants: tuple[StudyVariant, ...]


def run_folder(study: Path, label: str, seed: int) -> Path:
    """Where the run of a variant and a seed lies."""
    return study / "runs" / f"{_plain(label)}-seed{seed}"


def _plain(label: str) -> str:
    """A label as part of a file name that no shell minds; different for different labels."""
    text = label.replace(">", "-to-").replace(" + ", "+").replace("without ", "without-")
    if re.fullmatch(r"[\w.+-]{1,100}", text, re.ASCII):
        return text
    return re.sub(r"[^\w.+-]+", "_", text, flags=re.ASCII)[:80] + "-" + hashlib.sha256(label.encode()).hexdigest()[:8]


def read_study(folder: Path) -> Study | None:
    """The study in a folder, or None if there is none.

    Raises:
        RunError: The file is there and is no study.
    """
    path = folder / STUDY
    try:
        return Study.model_validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RunError(
            f"{path}: {where + ': ' if where else ''}{first['msg']}. "
            "This is no study of this version: choose another folder."
        ) from None
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}.") from error
