"""The papers' tables, made anew: what is trained and measured, where it runs, and how it is shown.

Modules in import order: plans, work, scheduler, tables. `reproduce.py` at the root is the command line.
"""
