"""Attacks on what the repository reads, writes and keeps running: damaged files, kills, a full disk, long loops.

FAULTS, an environment variable, multiplies the numbers of cases: `.ci/run` tries a fortieth of `make test-faults`.
"""
