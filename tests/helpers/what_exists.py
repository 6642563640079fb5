"""The tables of docs/models.md, what exists for what, from the records of fusions, families and objectives."""

from common.models.choices import MODELS
from common.models.families import FAMILIES
from common.models.fusions import FUSIONS
from common.models.objectives import OBJECTIVES, objectives_of, with_default
from reports.tables import markdown


def fusions_table() -> str:
    """Which fusion exists for which posterior families, in Markdown."""
    rows = []
    for name, fusion in FUSIONS.items():
        families = ", ".join(f"`{key}`" for key, family in FAMILIES.items() if fusion.exists(family))
        rows.append([f"`{name}`", families, fusion.summary])
    return markdown(["`--fusion`", "`--posterior`", "what it is"], rows)


def objectives_table() -> str:
    """Which objective exists for which fusions, in Markdown; in bold where it is that of its first model."""
    first = {fusion: objectives_of(fusion)[0] for fusion in FUSIONS}
    first |= {model.fusion: with_default(model)[0] for model in reversed(MODELS.values())}
    rows = []
    for name, record in OBJECTIVES.items():
        fusions = [f"**`{x}`**" if name == first[x] else f"`{x}`" for x in FUSIONS if x in record.fusions]
        energy_based = ["`ebm`"] * ("poe" in record.fusions and not record.needs_density)
        rows.append([f"`{name}`", ", ".join([*fusions, *energy_based]), record.summary])
    return markdown(["`--obj`", "`--fusion`", "what it maximises"], rows)
