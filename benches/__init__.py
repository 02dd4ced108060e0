"""Measurements that are asked for by hand: ``python -m benches.NAME``. Nothing here is part of the package."""
