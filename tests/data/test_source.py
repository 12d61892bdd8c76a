import pickle
import re
import subprocess
import sys
from collections.abc import Callable
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
    load_dataset,
)
from hiresnet_graph.errors import HrgError, UsageError


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
        ("digits:mean=0.5,std=0.25", DigitsData(mean=0.5, std=(0.25,))),
        ("cifar10:mean=0.49,0.48,0.45,std=[0.2,0.2,0.3]", Cifar10Data(mean=(0.49, 0.48, 0.45), std=(0.2, 0.2, 0.3))),
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


@pytest.mark.parametrize(
    ("text", "make"),
    [
        ("npz:x=y.npz", lambda: NpzData(file="x=y.npz")),
        ("npz:./new=y.npz", lambda: NpzData(file="new=y.npz")),
        ("npz:file=x=y.npz", lambda: NpzData(file="x=y.npz")),
        ("npz:a,b=c.npz", lambda: NpzData(file="a,b=c.npz")),
        ("npz:a,b=c.npz,split_seed=2", lambda: NpzData(file="a,b=c.npz", split_seed=2)),
        ("npz:file=a,b=c.npz,split_seed=2", lambda: NpzData(file="a,b=c.npz", split_seed=2)),
        ("npz:HERE/a,b=c.npz", lambda: NpzData(file="a,b=c.npz")),
        ("npz:a,split_seed=3.npz", lambda: NpzData(file="a,split_seed=3.npz")),
        ("npz:b:c.npz", lambda: NpzData(file="b:c.npz")),
        ("imagefolder:d=e,size=8", lambda: ImageFolderData(dir="d=e", size=8)),
        ("imagefolder:root=/a", lambda: ImageFolderData(dir="root=/a")),
        ("imagefolder:p,size=8", lambda: ImageFolderData(dir="p", size=8)),
        ("imagefolder:/a=b,size=8x8", lambda: ImageFolderData(dir="/a=b", size=8)),
        ("imagefolder:/a:b=c,size=16x48", lambda: ImageFolderData(dir="/a:b=c", size="16x48")),
        ("cifar10:root=/a=b", lambda: Cifar10Data(root="/a=b")),
        ("cifar10:root=p,q=r", lambda: Cifar10Data(root="p,q=r")),
    ],
)
def test_paths_with_the_characters_of_settings(
    text: str, make: Callable[[], DatasetKind], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("x=y.npz", "a,b=c.npz", "a,split_seed=3.npz", "b:c.npz"):
        (tmp_path / name).touch()
    for name in ("d=e", "root=/a", "p", "p,size=8", "p,q=r"):
        (tmp_path / name).mkdir(parents=True)
    assert data_source(text.replace("HERE", str(tmp_path))) == make()


@pytest.mark.parametrize("name", ["caf\udce9", "a\0b", "\ud800"])
@pytest.mark.parametrize("kind", ["npz:", "imagefolder:", "cifar10:root="])
def test_paths_that_are_not_text_are_refused(kind: str, name: str, tmp_path: Path) -> None:
    shown = name.encode("ascii", "backslashreplace").decode().replace("\0", r"\x00")
    message = re.escape(f"expected a path in UTF-8, got '{tmp_path}/{shown}'. Rename the file or folder.")
    with pytest.raises(UsageError, match=message) as caught:
        data_source(f"{kind}{tmp_path}/{name}")
    str(caught.value).encode()


@pytest.mark.parametrize("kind", ["npz", "imagefolder", "cifar10:root=/x,download=false", "tiny-imagenet:root=/x"])
def test_a_path_that_is_too_long_is_not_found(kind: str) -> None:
    with pytest.raises(HrgError, match=r"does not exist|too long|there is no folder"):
        load_dataset(f"{kind}:{'a' * 5000}" if "=" not in kind else kind.replace("/x", "/" + "a" * 5000))
    with pytest.raises(UsageError, match="there is no data set"):
        data_source("a" * 5000)


def test_download_applies_to_data_sets_that_can_be_downloaded() -> None:
    assert data_source("cifar10", download=True) == Cifar10Data(download=True)
    assert data_source("digits", download=True) == DigitsData()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("digit", r"^data: there is no data set 'digit'\. Did you mean 'digits'\?$"),
        ("digits,mean=0,std=1", r"^data: fields follow a colon: 'digits:mean=0,std=1', not 'digits,mean=0,std=1'\.$"),
        (
            "mnist",
            r"Known: .*, npz, .*\. For others, write their arrays with numpy and use 'npz:FILE', or their images",
        ),
        ("tiny_imagenet", r"Did you mean 'tiny-imagenet'\?"),
        ("zzz", r"Known: cifar10, cifar100, digits, imagefolder, npz, synthetic, tiny-imagenet\."),
        ("", r"there is no data set ''"),
        ("faces.npz", r"Did you mean 'npz:faces.npz'\?"),
        ("/tmp", r"Did you mean 'imagefolder:/tmp'\?"),
        ("npz", r"^data 'npz': 'file' is missing\. Write 'npz:FILE'\.$"),
        ("imagefolder:size=3", r"'dir' is missing\. Write 'imagefolder:DIR'\."),
        ("digits:8", r"data 'digits': '8' is not a setting\. Write 'digits:FIELD=VALUE'\."),
        ("npz:z=y.npz", r"'z=y\.npz' is not a file or folder, and 'z' is not a field\. .*write 'npz:\./z=y\.npz'\.$"),
        ("imagefolder:dri=/a", r"'dri=/a' is not a file or folder, and 'dri' is not a field\. Did you mean 'dir'\?"),
        ("imagefolder:/a,sise=3", r"unknown key 'sise'\. Did you mean 'size'\?$"),
        ("imagefolder:/a,size=3,size=4", r"^data 'imagefolder': 'size' is set twice\. Give it once\.$"),
        ("imagefolder:/a,dir=/b", r"^data 'imagefolder': 'dir' is set twice\. Give it once\.$"),
        ("synthetic:image=3", r"^data 'synthetic': .*unknown key 'image'\. Did you mean 'images'\?$"),
        ("synthetic:images=many", r"^data 'synthetic': images: expected a whole number, got 'many'\.$"),
        ("synthetic:channels=2", r"channels: expected 1 or 3, got '2'"),
        ("digits:validation_share=1", r"validation_share: expected a number less than 1, got '1'"),
        ("digits:mean=0", r"^data 'digits': 'mean' and 'std' go together: give both, or neither\.$"),
        ("digits:mean=0,std=0", r"^data 'digits': 'std' must be greater than 0, got 0\.$"),
        ("digits:mean=a,std=1", r"^data 'digits': mean: expected a number, or one for each channel, got 'a'\.$"),
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
