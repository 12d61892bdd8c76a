"""Numbers as text."""

from hiresnet_graph.formats import format_bytes, format_count, format_duration, format_percent, format_si, format_value


def test_numbers_have_their_units():
    assert [format_si(n) for n in (0, 999, 1000, 35_827_840, 999_960, 4_089_184_256)] == [
        "0",
        "999",
        "1.000 k",
        "35.83 M",
        "1.000 M",
        "4.089 G",
    ]
    assert [format_bytes(n) for n in (0, 552, 1024, 196_608, 1_500_000)] == [
        "0 B",
        "552 B",
        "1.00 KiB",
        "192 KiB",
        "1.43 MiB",
    ]
    assert (format_percent(1, 8), format_percent(0, 0)) == ("12.5 %", "")


def test_counts_have_a_noun():
    assert [format_count(n, "run") for n in (0, 1, 1200)] == ["0 runs", "1 run", "1,200 runs"]
    assert format_count(2, "index", "indices") == "2 indices"


def test_values_of_settings_have_few_digits():
    assert [format_value(v) for v in (0.01, 1 / 3, 16, "sgd")] == ["0.01", "0.333333", "16", "sgd"]
    assert format_value(1 / 3, digits=3) == "0.333"


def test_durations_have_a_unit_that_suits_them():
    assert [format_duration(t) for t in (0.4, 99, 100, 5_900, 11_100, 400_000)] == [
        "0 s",
        "99 s",
        "2 min",
        "98 min",
        "3 h 05 min",
        "4 d 15 h",
    ]
