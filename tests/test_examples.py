"""Every example runs and prints the right numbers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPTS = sorted((ROOT / "examples").glob("*.py"))
EXPECTED = {
    "training_loop": r"epoch 3: accuracy 0\.[89]",
    "lightning_training": r"^accuracy 0\.[5-9]",
    "grad_cam": r"maps \(2, 1, 8, 8\), for the image \(2, 1, 32, 32\)",
    "rsa": r" V1@0  1\.00",
    "brain_score": r"IT@5: \(100, 2048\)",
    "own_kinds": r"own: 25,750 parameters, logits of shape \(2, 10\)",
    "compare_edges": r"\A.*\nfull +273,466 parameters.*\n(.*\n){5}\Z",
}
"""Script -> a pattern of its output."""


def run(*args: str, path: Path | None = None) -> str:
    """Standard output of Python with these arguments, which must succeed."""
    env = {**os.environ, "PYTHONPATH": str(path)} if path else dict(os.environ)
    done = subprocess.run([sys.executable, *args], capture_output=True, text=True, cwd=ROOT, env=env, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_an_example_runs(script: Path) -> None:
    assert re.search(EXPECTED.get(script.stem, r"\S"), run(str(script)))


def test_an_installed_package_brings_its_block(tmp_path: Path) -> None:
    """The plugin is installed into a temporary folder and found through its entry point."""
    run("-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--target", str(tmp_path), "examples/plugin")
    spec = tmp_path / "v1.yaml"
    spec.write_text(
        "name: v1\ninput: {channels: 3, height: 32, width: 32}\n"
        "nodes: {stem: {block: gabor, width: 8}, head: {block: classifier, classes: 2}}\nflow: stem -> head\n"
    )
    code = f"import hiresnet_graph as hrg; print(hrg.load({str(spec)!r}).cost().parameters)"
    assert run("-c", code, path=tmp_path).strip() == str(3 * 8 * 15 * 15 + 2 * 8 + 8 * 2 + 2)
    # Without the package the block is unknown.
    failed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert "there is no block 'gabor'" in failed.stderr
