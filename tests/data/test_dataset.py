import subprocess
import sys
from collections import Counter

import pytest
import torch

from hiresnet_graph.data import DATASETS, load_dataset
from hiresnet_graph.data.dataset import Dataset
from hiresnet_graph.data.split import Split
from hiresnet_graph.errors import UsageError
from hiresnet_graph.shapes import Map


def colours() -> Dataset:
    """Four 2x2 images in three channels; the first channel of the training images holds 10 and 30."""
    images_NCHW = torch.zeros(4, 3, 2, 2, dtype=torch.uint8)
    images_NCHW[0, 0], images_NCHW[1, 0], images_NCHW[2, 0] = 10, 30, 250
    return Dataset("colours", 2, images_NCHW, torch.tensor([0, 1, 0, 1]), Split((0, 1), (2,), (3,)))


def test_digits_are_the_images_of_scikit_learn() -> None:
    digits = load_dataset("digits")
    assert digits.shape == Map(1, 8, 8)
    assert digits.classes == 10
    assert digits.images_NCHW.dtype == torch.uint8
    assert (int(digits.images_NCHW.min()), int(digits.images_NCHW.max())) == (0, 255)
    assert [len(part) for part in digits.split] == [1294, 144, 359]
    # the first image is a zero: dark in the middle, bright beside it
    assert digits.labels_N[0] == 0
    assert digits.images_NCHW[0, 0, 3].tolist() == [0, 64, 191, 0, 0, 128, 128, 0]


def test_each_part_of_the_digits_has_each_class_in_its_share() -> None:
    digits = load_dataset("digits")
    whole = Counter(digits.labels_N.tolist())
    for part in digits.split:
        counts = Counter(digits.labels_N[torch.tensor(part)].tolist())
        for label, number in whole.items():
            assert abs(counts[label] - number * len(part) / 1797) <= 1.5


def test_the_split_of_the_digits_is_a_field_of_the_kind() -> None:
    kind = DATASETS.get("digits")
    assert kind(split_seed=1).load().split != kind().load().split
    assert kind(split_seed=1).load().fingerprint() != kind().load().fingerprint()


def test_a_batch_is_normalised_with_the_training_images_alone() -> None:
    x_BCHW, labels_B = colours().batch(torch.tensor([0, 1, 2]))
    assert x_BCHW.dtype == torch.float32
    assert labels_B.tolist() == [0, 1, 0]
    # mean 20, standard deviation 10
    assert x_BCHW[:, 0, 0, 0].tolist() == [-1, 1, 23]
    # a channel without spread stays finite
    assert x_BCHW[:, 1:].abs().max() == 0


def test_normalised_digits_have_mean_0_and_standard_deviation_1() -> None:
    digits = load_dataset("digits").fitted_to(Map(3, 12, 10))
    x_BCHW, _ = digits.batch(torch.tensor(digits.split.train))
    std_C, mean_C = torch.std_mean(x_BCHW.double(), dim=(0, 2, 3), correction=0)
    assert torch.allclose(mean_C, torch.zeros(3, dtype=torch.float64), atol=1e-6)
    assert torch.allclose(std_C, torch.ones(3, dtype=torch.float64), atol=1e-6)


def test_grey_is_repeated_for_a_network_that_wants_colour() -> None:
    digits = load_dataset("digits")
    assert digits.fitted_to(Map(1, 8, 8)) is digits
    colour = digits.fitted_to(Map(3, 8, 8))
    assert colour.shape == Map(3, 8, 8)
    assert all(torch.equal(colour.images_NCHW[:, c], digits.images_NCHW[:, 0]) for c in range(3))
    assert digits.fitted_to(Map(3, 16, 16)).shape == Map(3, 16, 16)


def test_the_size_is_changed_bilinearly() -> None:
    images_NCHW = torch.tensor([[[[0, 100], [0, 100]]]], dtype=torch.uint8)
    ramp = Dataset("ramp", 1, images_NCHW, torch.tensor([0]), Split((0,), (), ()))
    assert ramp.fitted_to(Map(1, 4, 4)).images_NCHW.tolist() == [[[[0, 25, 75, 100]] * 4]]
    assert ramp.fitted_to(Map(1, 1, 1)).images_NCHW.tolist() == [[[[50]]]]
    assert ramp.fitted_to(Map(1, 2, 4)).images_NCHW.tolist() == [[[[0, 25, 75, 100]] * 2]]


def test_colour_does_not_become_grey() -> None:
    with pytest.raises(UsageError, match=r"3 channels, the network wants 1\. Set 'input.channels=3'"):
        colours().fitted_to(Map(1, 2, 2))


def test_the_fingerprint_tells_images_labels_and_split_apart() -> None:
    base = colours()
    moved = Dataset(base.name, 2, base.images_NCHW, base.labels_N, Split((0, 2), (1,), (3,)))
    relabelled = Dataset(base.name, 2, base.images_NCHW, 1 - base.labels_N, base.split)
    redrawn = Dataset(base.name, 2, base.images_NCHW + 1, base.labels_N, base.split)
    named = Dataset("other", 2, base.images_NCHW.clone(), base.labels_N, base.split)
    assert len({data.fingerprint() for data in (base, moved, relabelled, redrawn)}) == 4
    assert named.fingerprint() == base.fingerprint()


def test_an_unknown_data_set_is_named_with_the_closest() -> None:
    with pytest.raises(UsageError, match=r"there is no data set 'digit'\. Did you mean 'digits'\?"):
        load_dataset("digit")


def test_listing_the_kinds_does_not_import_torch() -> None:
    code = (
        "import sys; from hiresnet_graph.data import DATASETS; print(list(DATASETS)); assert 'torch' not in sys.modules"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "digits" in out
