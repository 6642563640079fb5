"""The tables of docs/models.md, what exists for what, from the records of fusions, families and objectives."""

from common.models.choices import MODELS
from common.models.families import FAMILIES
from common.models.fusions import FUSIONS
from common.models.objectives import OBJECTIVES, objectives_of, with_default
from reports.tables import markdown


def fusions_table() -> str:
    """Which fusion exists for which posterior family, in Markdown."""
    rows = []
    for name, fusion in FUSIONS.items():
        cells = ["yes" if fusion.exists(family) else "" for family in FAMILIES.values()]
        rows.append([f"`{name}`", *cells, fusion.summary])
    return markdown(["`--fusion`", *(f"`{family}`" for family in FAMILIES), "what it is"], rows)


def objectives_table() -> str:
    """Which objective exists for which fusion, in Markdown; "default" is that of its first model without --obj."""
    first = {fusion: objectives_of(fusion)[0] for fusion in FUSIONS}
    first |= {model.fusion: with_default(model)[0] for model in reversed(MODELS.values())}
    head = ["`--obj`", *(f"`{fusion}`" for fusion in FUSIONS), "`--posterior ebm`", "what it maximises"]
    rows = []
    for name, record in OBJECTIVES.items():
        cells = ["yes" if fusion in record.fusions else "" for fusion in FUSIONS]
        cells = ["default" if name == first[x] else cell for x, cell in zip(FUSIONS, cells, strict=True)]
        energy_based = "poe" in record.fusions and not record.needs_density
        rows.append([f"`{name}`", *cells, "yes" if energy_based else "", record.summary])
    return markdown(head, rows)
