"""Weights from files: of runs, of other programs, and what is no such file."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import hiresnet_graph as hrg
from hiresnet_graph.errors import RunError
from hiresnet_graph.lower.weights import load_weights


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_prefixes_of_torch_are_removed_and_reported(tiny: hrg.Architecture, tmp_path: Path, prefix: str) -> None:
    trained, module = tiny.build(seed=7), tiny.build()
    save_file({f"{prefix}{name}": value for name, value in trained.state_dict().items()}, tmp_path / "w.safetensors")
    note = load_weights(module, tmp_path / "w.safetensors")
    path = tmp_path / "w.safetensors"
    assert note == (f"Removed the prefix '{prefix}' from the names of the weights in {path}." if prefix else "")
    assert all(torch.equal(value, module.state_dict()[name]) for name, value in trained.state_dict().items())


def test_a_prefix_that_belongs_to_the_network_stays(tmp_path: Path) -> None:
    spec = "{name: n, input: {channels: 1, height: 2, width: 2}, nodes: {module: {block: conv, width: 2}}}"
    trained, module = hrg.loads(spec).build(seed=7), hrg.loads(spec).build()
    save_file(dict(trained.state_dict()), tmp_path / "w.safetensors")
    assert load_weights(module, tmp_path / "w.safetensors") == ""
    assert torch.equal(trained.state_dict()["module.conv.weight"], module.state_dict()["module.conv.weight"])


def test_a_folder_stands_for_the_best_weights_of_its_run(tiny: hrg.Architecture, tmp_path: Path) -> None:
    trained, module = tiny.build(seed=7), tiny.build()
    with pytest.raises(RunError, match=r"there is no file 'model.safetensors' in this folder\. A run writes it"):
        load_weights(module, tmp_path)
    (tmp_path / "runs").mkdir()
    with pytest.raises(RunError, match=r"holds a study, which has no weights\. Give a folder below '.*runs'"):
        load_weights(module, tmp_path)
    save_file(dict(trained.state_dict()), tmp_path / "model.safetensors")
    assert load_weights(module, tmp_path) == ""
    assert all(torch.equal(value, module.state_dict()[name]) for name, value in trained.state_dict().items())


def test_other_files_are_named_with_what_to_do(tiny: hrg.Architecture, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    for is_zip in (True, False):
        torch.save(tiny.build().state_dict(), path, _use_new_zipfile_serialization=is_zip)
        with pytest.raises(RunError) as error:
            load_weights(tiny.build(), path)
        assert str(error.value) == (
            f"{path}: this is a file of torch.save, not of safetensors. Convert it in Python: "
            "safetensors.torch.save_file(torch.load('w.pth', weights_only=True), 'w.safetensors')"
        )
    for content, message in (
        (b"version https://git-lfs.github.com/spec/v1\noid", "this is a pointer of Git LFS, not the weights"),
        (b"", "the file is empty."),
        (b"name: net\ninput: {}\n", "this is a text, not a safetensors file."),
        (b"\x00\x01\x02\xff" * 9, "not a safetensors file, or damaged: "),
    ):
        path.write_bytes(content)
        with pytest.raises(RunError, match=message):
            load_weights(tiny.build(), path)
