"""Weights from files: of runs, of other programs, and what is no such file."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save, save_file

import hiresnet_graph as hrg
from hiresnet_graph.errors import RunError
from hiresnet_graph.lower.weight_files import read_weights
from hiresnet_graph.lower.weights import load_weights


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_prefixes_of_torch_are_removed_and_reported(tiny: hrg.Architecture, tmp_path: Path, prefix: str) -> None:
    trained, module = tiny.build(seed=7), tiny.build()
    save_file({f"{prefix}{name}": value for name, value in trained.state_dict().items()}, tmp_path / "w.safetensors")
    note = load_weights(module, tmp_path / "w.safetensors")
    path = tmp_path / "w.safetensors"
    assert note == [f"Removed the prefix '{prefix}' from the names of the weights in {path}."] * bool(prefix)
    assert all(torch.equal(value, module.state_dict()[name]) for name, value in trained.state_dict().items())


def test_a_prefix_that_belongs_to_the_network_stays(tmp_path: Path) -> None:
    spec = "{name: n, input: {channels: 1, height: 2, width: 2}, nodes: {module: {block: conv, width: 2}}}"
    trained, module = hrg.loads(spec).build(seed=7), hrg.loads(spec).build()
    save_file(dict(trained.state_dict()), tmp_path / "w.safetensors")
    assert load_weights(module, tmp_path / "w.safetensors") == []
    assert torch.equal(trained.state_dict()["module.conv.weight"], module.state_dict()["module.conv.weight"])


def test_a_folder_stands_for_the_best_weights_of_its_run(tiny: hrg.Architecture, tmp_path: Path) -> None:
    trained, module = tiny.build(seed=7), tiny.build()
    with pytest.raises(RunError, match=r"there is no file 'model.safetensors' in this folder\. A run writes it"):
        load_weights(module, tmp_path)
    (tmp_path / "runs").mkdir()
    with pytest.raises(RunError, match=r"holds a study, which has no weights\. Give a folder below '.*runs'"):
        load_weights(module, tmp_path)
    save_file(dict(trained.state_dict()), tmp_path / "model.safetensors")
    assert load_weights(module, tmp_path) == []
    assert all(torch.equal(value, module.state_dict()[name]) for name, value in trained.state_dict().items())


@pytest.mark.parametrize("length", [0x1C80, 0x4B50], ids=["as a pickle", "as a ZIP archive"])
def test_the_length_of_a_header_does_not_make_it_another_file(
    tiny: hrg.Architecture, tmp_path: Path, length: int
) -> None:
    """The header of a safetensors file may be padded with spaces, and begins with its length."""
    module = tiny.build(seed=1)
    content = save(module.state_dict())
    old = int.from_bytes(content[:8], "little")
    assert old <= length
    path = tmp_path / "padded.safetensors"
    path.write_bytes(length.to_bytes(8, "little") + content[8 : 8 + old].ljust(length) + content[8 + old :])
    assert path.read_bytes().startswith((b"\x80", b"PK"))
    other = tiny.build(seed=2)
    load_weights(other, path)
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize("is_zip", [True, False])
def test_tensors_of_torch_save_are_read(tiny: hrg.Architecture, tmp_path: Path, is_zip: bool) -> None:
    trained, path = tiny.build(seed=7), tmp_path / "w.pth"
    state = trained.state_dict()
    for content, notes in (
        (state, []),
        (
            {"epoch": 3, "optimizer": {"lr": 0.1}, "model": state},
            [f"The weights in {path} are those of its entry 'model'."],
        ),
    ):
        torch.save(content, path, _use_new_zipfile_serialization=is_zip)
        module = tiny.build()
        assert load_weights(module, path) == notes
        assert all(torch.equal(value, module.state_dict()[name]) for name, value in state.items())


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("code of the file was run",)


def test_files_of_torch_save_with_more_than_tensors_are_not_read(
    tiny: hrg.Architecture, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "w.pth"
    for content in (tiny.build(), {"state_dict": tiny.build().state_dict(), "x": Evil()}):
        torch.save(content, path)
        with pytest.raises(
            RunError, match=r"holds more than tensors, such as a whole module\. Loading that would run code"
        ):
            load_weights(tiny.build(), path)
    assert not capsys.readouterr().out
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(RunError, match="is damaged, or holds more than tensors"):
        load_weights(tiny.build(), path)
    state = tiny.build().state_dict()
    for other, message in (
        ([1, 2], "holds no dict of tensors by name. Save"),
        ({"a": state, "b": state}, "holds no dict of tensors by name, but several dicts of tensors: 'a', 'b'."),
    ):
        torch.save(other, path)
        with pytest.raises(RunError, match=message):
            load_weights(tiny.build(), path)


def test_what_does_not_fit_is_listed_and_keeps_its_values_if_asked_for(tiny: hrg.Architecture, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file(dict(tiny.override({"head.classes": 3}).with_edges("in").build(seed=7).state_dict()), path)
    module = tiny.with_edges("p1").build(seed=5)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(RunError, match=r"belong to another network: 'head.linear.weight' is \[3, "):
        load_weights(module, path)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    lacking, reshaped, unused = load_weights(module, path, reinit=True)
    assert "lacks 'edges.stage1__stage2." in lacking and "'head.linear.weight'" in reshaped
    assert "'edges.stem__stage2." in unused and unused.endswith("which the network lacks: not used.")
    assert torch.equal(module.state_dict()["head.linear.weight"], before["head.linear.weight"])
    assert not torch.equal(module.state_dict()["stem.conv.weight"], before["stem.conv.weight"])


def test_skips_that_the_weights_lack_are_no_other_network(tiny: hrg.Architecture, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file(dict(tiny.with_edges("none").build().state_dict()), path)
    with pytest.raises(
        RunError, match=r"the network has edges that the weights lack: 'edges\.\w+\.conv\.weight'"
    ) as caught:
        load_weights(tiny.with_edges("full").build(), path, hint="What to do.")
    assert str(caught.value).endswith("more tensors. What to do.") and "another network" not in str(caught.value)


def test_other_files_are_named_with_what_to_do(tiny: hrg.Architecture, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    for content, message in (
        (b"version https://git-lfs.github.com/spec/v1\noid", "this is a pointer of Git LFS, not the weights"),
        (b"", "the file is empty."),
        (b"name: net\ninput: {}\n", "this is a text, not a safetensors file."),
        (b"\x00\x01\x02\xff" * 9, "not a safetensors file, or damaged: "),
    ):
        path.write_bytes(content)
        with pytest.raises(RunError, match=message):
            load_weights(tiny.build(), path)


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_tensors_that_no_network_has_are_refused(tiny: hrg.Architecture, tmp_path: Path) -> None:
    tensors = tiny.build().state_dict()
    name = next(name for name, value in tensors.items() if value.ndim == 2)
    kinds = {
        "sparse": tensors[name].to_sparse(),
        "complex": tensors[name].to(torch.complex64),
        "quantized": torch.quantize_per_tensor(tensors[name], 0.1, 0, torch.qint8),
    }
    for kind, value in kinds.items():
        torch.save({**tensors, name: value}, tmp_path / "weights.pth")
        with pytest.raises(RunError, match=rf"'{name}' is {kind}. Save it as an ordinary tensor of real numbers"):
            read_weights(tmp_path / "weights.pth")
