"""Print the table of what attacks came to; after all of them (FAULTS=20) also put it into docs/reliability.md.

python -m tests.faults.table faults.jsonl
"""

import json
import sys
from collections import Counter
from pathlib import Path

from reports.tables import Table
from tests.faults.attack import FACTOR, OUTCOMES
from training.provenance import git_commit

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- table -->", "<!-- end of the table -->"


def table(log):
    """The table of the numbers of outcomes by kind of attack, in the order of their names."""
    counts = {}
    for line in log.read_text().splitlines():
        record = json.loads(line)
        counts.setdefault(record.pop("kind"), Counter()).update(record)
    counts = dict(sorted(counts.items())) | {"all": sum(counts.values(), Counter())}
    rows = [(kind, f"{sum(n.values()):,}", *(f"{n[outcome]:,}" for outcome in OUTCOMES)) for kind, n in counts.items()]
    return Table("faults", counts, ("attack", "tried", *OUTCOMES), rows)


def main(log):
    shown = f"{table(log)}\n"
    print(shown)
    if FACTOR >= 20:
        before, rest = PAGE.read_text().split(BEGIN)
        made = f"`make test-faults FAULTS={FACTOR:g}`, commit {git_commit()}:\n\n"
        PAGE.write_text(before + BEGIN + "\n" + made + shown + END + rest.split(END)[1])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
