"""What a table consists of: plans of its trainings, the measures of each model, and the figures shown."""

from dataclasses import dataclass, field
from typing import NamedTuple

from tools.reproduction.published import Published


class Setting(NamedTuple):
    """Options of a training."""

    epochs: int
    annealing: int
    options: str = ""


class Measure(NamedTuple):
    """A script that scores a model and writes its figures into the JSON file `name`.json."""

    name: str
    script: str
    options: str = ""
    demo: str | None = ""
    """the options on built-in data; None: not measured there"""


@dataclass(frozen=True)
class Plan:
    """A model of a table: how it is trained and measured, the same for every seed."""

    experiment: str
    """the folder whose scripts run"""
    model: str
    """its name in the table"""
    full: Setting
    """the training of the results"""
    demo: Setting | None
    """a training of minutes on built-in data; None: left out, since another plan shows the same"""
    measures: tuple[Measure, ...]
    published: dict[str, Published] = field(default_factory=dict)
    """by the figure's name"""
    dataset: str = ""
    """the dataset's folder in the data-dir; default: the experiment's name"""
    generated: bool = False
    """the experiment makes its data without files"""
    prepare: tuple[str, ...] = ()
    """commands (module and options) that make the missing files of the dataset, once. {data} stands for its folder,
    {root} for the data-dir, {cuda} for --cuda if the runs have it"""
    starts_from: str = ""
    """the model, of the same experiment and seed, that this one is initialised from"""
    train: str = "train"
    """the training script and its subcommand"""
    then: tuple[str, ...] = ()
    """commands (module and options) that follow the training; {run} stands for the run's folder"""
    writes: tuple[str, ...] = ()
    """names of the JSON files that the training script writes itself"""
    y: str = ""
    """the modality that y stands for in the figures' names"""
    other_test_images: bool = False
    """the test images are not those of the paper"""
    other_data: bool = False
    """the published figures are of other data: the table shows no difference from them"""
    note: str = ""
    """how the published figures' data differ from ours"""

    @property
    def name(self) -> str:
        """The plan's name in messages."""
        return f"{self.experiment}/{self.model}"

    @property
    def data(self) -> str:
        """The dataset's folder in the data-dir."""
        return self.dataset or self.experiment


class Figure(NamedTuple):
    """A column of a table, or a row of a long one."""

    name: str
    keys: tuple
    """its keys in a run's results, an index where they are a list; {y} stands for the plan's y"""
    percent: bool = False
    other_keys: tuple = ()
    """the keys of a second estimate of the same quantity, which the table shows in a further column"""
    of_judges: bool = False
    """a distance between judges' features, which compares only where the judges are the same"""


@dataclass(frozen=True)
class Table:
    """A table of a paper."""

    title: str
    source: str
    figures: tuple[Figure, ...]
    plans: tuple[Plan, ...]
    other_title: str = ""
    """the title of the column with the second estimates"""
    shows_untrained: bool = False
    """shows published figures of models that were not trained, too"""
    in_results: bool = True
    """its models have lines in the table of all experiments"""
    further: tuple[Figure, ...] = ()
    """figures that stand in a second table of the same models"""
    comparable: bool = True
    """the published figures are of our data. If not, each has a column of its own beside ours, without a difference"""
