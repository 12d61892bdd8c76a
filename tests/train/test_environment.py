"""The environment of a run: it is set while the run is computed, and restored afterwards."""

import os
import signal
import threading
import time

import pytest
import torch

from hiresnet_graph.errors import UsageError
from hiresnet_graph.train.environment import (
    choose_device,
    deferred_interrupt,
    describe_environment,
    retain_freed_memory,
    tf32_products,
    torch_settings,
)


def test_settings_are_restored() -> None:
    torch.manual_seed(3)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    with torch_settings(torch.device("cpu"), 2, False):
        assert torch.get_num_threads() == 2
        torch.rand(3)
    assert torch.equal(torch.get_rng_state(), before) and torch.get_num_threads() == threads


def test_tf32_is_restored() -> None:
    def found() -> list[bool]:
        return [torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32]

    before = found()
    for tf32 in (True, False):
        with tf32_products(tf32):
            assert found() == [tf32, tf32]
            assert (torch.backends.cuda.matmul.fp32_precision == "tf32") == tf32
        assert found() == before


def test_devices_by_name() -> None:
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert choose_device("cpu") == torch.device("cpu")
    for name in ("cuda:99", "mps", "gpu", ""):
        with pytest.raises(UsageError, match="device"):
            choose_device(name)


def test_a_second_ctrl_c_acts_at_once() -> None:
    def press() -> None:
        os.kill(os.getpid(), signal.SIGINT)

    with deferred_interrupt() as pressed:
        assert not pressed()
        press()
        press()  # forwarded by a launcher
        assert pressed()
    with pytest.raises(KeyboardInterrupt), deferred_interrupt():
        press()
        time.sleep(1.1)
        press()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_another_handler_of_ctrl_c_is_unchanged() -> None:
    seen = []
    before = signal.signal(signal.SIGINT, lambda *_: seen.append(1))
    try:
        with deferred_interrupt() as pressed:
            os.kill(os.getpid(), signal.SIGINT)
            assert seen and not pressed()
    finally:
        signal.signal(signal.SIGINT, before)
    inside = []
    thread = threading.Thread(target=lambda: inside.append(deferred_interrupt().__enter__()()))
    thread.start()
    thread.join()
    assert inside == [False]


def test_the_environment_is_recorded() -> None:
    retain_freed_memory()
    environment = describe_environment(torch.device("cpu"), 3, True, "eager")
    assert (environment.device, environment.threads, environment.channels_last) == ("cpu", 3, True)
    assert environment.torch == torch.__version__
    assert environment.commit is None or len(environment.commit.removesuffix("+changes")) == 40
