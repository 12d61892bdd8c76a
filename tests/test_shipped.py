from pathlib import Path

from pytest import MonkeyPatch

from hiresnet_graph import shipped


def test_the_specs_of_a_checkout_are_found() -> None:
    names = shipped.spec_names()
    assert "hiresnet18" in names
    assert names == sorted(names)
    path = shipped.spec_path("hiresnet18")
    assert path is not None
    assert path == Path(__file__).parents[1] / "specs" / "hiresnet18.yaml"
    assert "name: hiresnet18" in path.read_text()


def test_an_unknown_name_gives_none() -> None:
    for name in ("", "hiresnet", "hiresnet18.yaml", "../specs/hiresnet18", "*"):
        assert shipped.spec_path(name) is None


def test_an_installed_package_contains_the_specs(tmp_path: Path, monkeypatch: MonkeyPatch) -> None:
    (tmp_path / "_specs").mkdir()
    (tmp_path / "_specs" / "mine.yaml").write_text("name: mine\n")
    monkeypatch.setattr(shipped, "_PACKAGE", tmp_path)
    assert shipped.spec_names() == ["mine"]
    assert shipped.spec_path("mine") == tmp_path / "_specs" / "mine.yaml"
