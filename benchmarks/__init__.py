"""Speed, side by side: each module with a `main` is a script, `python -m benchmarks.NAME [--quick] [--json FILE]`.

Nothing here is a test and nothing fails when a target is missed: the tables say so. `results/` holds one run of each.
"""
