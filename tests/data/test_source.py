import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from hiresnet_graph.data import (
    DATASETS,
    Cifar10Data,
    DatasetKind,
    DigitsData,
    ImageFolderData,
    NpzData,
    SyntheticData,
    TinyImagenetData,
    data_source,
)
from hiresnet_graph.errors import UsageError


@pytest.mark.parametrize(
    ("given", "source"),
    [
        ("digits", DigitsData()),
        ("digits:split_seed=3", DigitsData(split_seed=3)),
        ("cifar10:root=/pictures", Cifar10Data(root="/pictures")),
        ("tiny-imagenet:stream=true", TinyImagenetData(stream=True)),
        ("npz:/a,b/c=d.npz", NpzData(file="/a,b/c=d.npz")),
        ("imagefolder:/pictures,size=32,channels=1", ImageFolderData(dir="/pictures", size=32, channels=1)),
        ("synthetic:classes=3,images=500", SyntheticData(classes=3, images=500)),
        ({"kind": "synthetic", "size": 8}, SyntheticData(size=8)),
        (SyntheticData(size=8), SyntheticData(size=8)),
    ],
)
def test_a_source_from_text_or_a_mapping_or_an_instance(given: object, source: DatasetKind) -> None:
    assert data_source(given) == source
    assert data_source(str(source)) == source
    assert data_source(source.as_data()) == source
    assert pickle.loads(pickle.dumps(source)) == source


def test_paths_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    assert data_source("npz:a.npz").file == tmp_path / "a.npz"
    assert data_source("imagefolder:~/b").dir == Path("/home/somebody/b")
    assert data_source("cifar10:root=..").as_data() == {"kind": "cifar10", "root": str(tmp_path / "..")}


def test_download_applies_to_data_sets_that_can_be_downloaded() -> None:
    assert data_source("cifar10", download=True) == Cifar10Data(download=True)
    assert data_source("digits", download=True) == DigitsData()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("digit", r"^data: there is no data set 'digit'\. Did you mean 'digits'\?$"),
        ("tiny_imagenet", r"Did you mean 'tiny-imagenet'\?"),
        ("zzz", r"Known: cifar10, cifar100, digits, imagefolder, npz, synthetic, tiny-imagenet\."),
        ("", r"there is no data set ''"),
        ("faces.npz", r"Did you mean 'npz:faces.npz'\?"),
        ("/tmp", r"Did you mean 'imagefolder:/tmp'\?"),
        ("npz", r"^data 'npz': 'file' is missing\. Write 'npz:FILE'\.$"),
        ("imagefolder:size=3", r"'dir' is missing\. Write 'imagefolder:DIR'\."),
        ("digits:8", r"data 'digits': '8' is not a setting\. Write 'digits:FIELD=VALUE'\."),
        ("synthetic:image=3", r"^data 'synthetic': .*unknown key 'image'\. Did you mean 'images'\?$"),
        ("synthetic:images=many", r"^data 'synthetic': images: expected a whole number, got 'many'\.$"),
        ("synthetic:channels=2", r"channels: expected 1 or 3, got '2'"),
        ("digits:validation_share=1", r"validation_share: expected a number less than 1, got '1'"),
        ({"root": "x"}, r"^data: a mapping requires 'kind'"),
        ({"kind": "synthetic", "images": 0, "clases": 1}, r"(?s)images: .*at least 1, got 0\.\n.*mean 'classes'\?"),
    ],
)
def test_an_invalid_source_is_refused(given: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        data_source(given)


def test_listing_data_sets_does_not_import_torch() -> None:
    code = (
        "import sys; from hiresnet_graph.data import DATASETS, data_source; print(*DATASETS, data_source('cifar10'));"
        "assert not {'torch', 'torchvision', 'PIL', 'sklearn'} & set(sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.split() == [*DATASETS, "cifar10"]
