"""Pausing the collector: what was made meanwhile joins the oldest objects, and settings of others stay."""

import gc

from hiresnet_graph.gc_pause import gc_paused


def test_large_structures_join_the_oldest_objects() -> None:
    with gc_paused():
        assert not gc.isenabled()
        with gc_paused():
            made = [[i] for i in range(10_000)]
        assert not gc.isenabled()
    assert gc.isenabled() and gc.get_freeze_count() == 0
    young = {id(one) for generation in (0, 1) for one in gc.get_objects(generation)}
    assert not any(id(one) in young for one in made)


def test_a_collector_that_is_off_stays_off_and_frozen_objects_stay_frozen() -> None:
    gc.disable()
    try:
        with gc_paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
    gc.freeze()
    try:
        frozen = gc.get_freeze_count()
        with gc_paused():
            pass
        assert gc.get_freeze_count() >= frozen - 100  # some may have been freed
    finally:
        gc.unfreeze()
