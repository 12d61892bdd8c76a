import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiresnet_graph.errors import RunError
from hiresnet_graph.sweep.study import read_study, run_folder


def test_the_name_of_a_folder_can_be_read() -> None:
    names = [
        run_folder(Path("s"), label, 3).name for label in ("full", "a>b + b.c>d", "without stem>stage1", "full - p1")
    ]
    assert names[:3] == ["full-seed3", "a-to-b+b.c-to-d-seed3", "without-stem-to-stage1-seed3"]
    assert re.fullmatch(r"full_-_p1-[0-9a-f]{8}-seed3", names[3])
    assert run_folder(Path("s"), "full", 0) == Path("s/runs/full-seed0")


@given(st.text(min_size=1, max_size=300))
def test_any_label_is_a_file_name(label: str) -> None:
    name = run_folder(Path("s"), label, 0).name
    assert re.fullmatch(r"[A-Za-z0-9_.+-]{1,120}", name)


def test_different_labels_have_different_folders() -> None:
    labels = ["a>b", "a b", "a_b", "a&b", "a - b", "a-b", "x" * 200, "x" * 201, "(a)", "a", "ä", "ö"]
    assert len({run_folder(Path("s"), label, 0) for label in labels}) == len(labels)


def test_a_study_that_is_none_is_told(tmp_path: Path) -> None:
    assert read_study(tmp_path) is None
    assert read_study(tmp_path / "nowhere") is None
    (tmp_path / "study.json").write_text("{}")
    with pytest.raises(RunError, match=r"study\.json: architecture: .*This is no study of this version"):
        read_study(tmp_path)
