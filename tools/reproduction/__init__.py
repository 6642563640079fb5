"""The papers' tables, reproduced: what is trained and measured, on which machines, and how results are shown.

Modules in import order: published, records, plans, results, commands, work, scheduler, tables, charts, report.
`reproduce.py` at the root is the command line.
"""
