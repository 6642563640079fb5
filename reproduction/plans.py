"""The plan of each table: the trainings, how each model is measured, and the published figures."""

from dataclasses import dataclass, field
from typing import NamedTuple


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


class Published(NamedTuple):
    """A figure of a paper."""

    value: float
    recalled: bool = True
    """quoted from memory, not checked against the paper"""


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
    writes: tuple[str, ...] = ()
    """names of the JSON files that the training script writes itself"""
    y: str = ""
    """the modality that y stands for in the figures' names"""
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
    at: tuple
    """its keys in a run's results: {y} stands for the plan's y, and (key, value) selects the entry of a list"""
    percent: bool = False


@dataclass(frozen=True)
class Table:
    """A table of a paper."""

    title: str
    source: str
    figures: tuple[Figure, ...]
    plans: tuple[Plan, ...]


def _published(names: tuple[str, ...], values: str) -> dict[str, Published]:
    return {name: Published(float(value)) for name, value in zip(names, values.split(), strict=True)}


LIKELIHOODS = ("log p(x)", "log p(x,y)", "log p(x|y)")
TABLE2 = {
    "mnist/mvae": "-90.619 -90.859 -88.569",
    "mnist/jmvae": "-90.697 -90.769 -88.696",
    "fashionmnist/mvae": "-232.535 -233.007 -230.695",
    "fashionmnist/jmvae": "-232.630 -232.948 -230.396",
    "multimnist/mvae": "-152.761 -153.469 -147.027",
    "celeba/mvae": "-6236.923 -6242.034 -6234.955",
    "celeba19/mvae": "-6236.109 -6239.944 -6233.340",
}
LOGLIKE = Measure("loglike", "loglike", "", "--limit 100 --n-samples 50")
FEW = Measure("loglike", "loglike", "--limit 400", "--limit 20 --n-samples 20")
ATTRIBUTES = Measure("attributes", "analyse", "", None)  # its classifier alone takes minutes of a core


def _mvae(experiment: str, model: str, full: Setting, demo: Setting | None, **others: object) -> Plan:
    known = TABLE2.get(f"{experiment}/{model}")
    published = _published(LIKELIHOODS, known) if known else {}
    return Plan(experiment, model, full, demo, published=published, **others)


def _digits(experiment: str, model: str) -> Plan:
    options = f"--model {model} --lambda-text 1"
    demo = Setting(10 if experiment == "mnist" else 2, 1, f"{options} --batch-size 50")
    has_demo = experiment == "mnist" or model == "mvae"  # FashionMNIST's convolutions take longer
    full = Setting(80, 30, options)
    return _mvae(experiment, model, full, demo if has_demo else None, measures=(LOGLIKE,), y="text")


DIGITS = tuple(
    _digits(experiment, model)
    for experiment in ("mnist", "fashionmnist")
    for model in ("mvae", "jmvae", "mvae-q", "bivcca", "mopoe", "vae", "cvae")
)
MULTIMNIST = _mvae(
    "multimnist",
    "mvae",
    Setting(220, 15, "--lambda-text 1"),
    Setting(3, 1, "--lambda-text 1 --limit 1000"),
    measures=(LOGLIKE._replace(demo="--limit 50 --n-samples 20"),),
    prepare=("multimnist.generate --mnist-dir {root}/mnist --data-dir {data}",),
    y="text",
)
FACES = tuple(
    _mvae(
        experiment,
        "mvae",
        Setting(60, 20, options),
        Setting(2, 1, f"{options} --limit {limit}"),
        measures=(FEW, ATTRIBUTES),
        dataset="celeba",
        y="attrs",
        note="The paper's CelebA models are trained on 162,770 images.",
    )
    for experiment, options, limit in (
        ("celeba", "--lambda-attrs 1 --lr 1e-3", 1000),
        ("celeba19", "--approx-m 1 --lambda-attrs 1 --lr 1e-3", 600),
    )
)
VISION = Plan(
    "vision",
    "mvae",
    Setting(14, 5, "--lr 1e-3"),
    Setting(2, 1, "--lr 1e-3 --limit 300"),
    (FEW._replace(options="--limit 60", demo="--limit 5 --n-samples 20"), ATTRIBUTES),
    dataset="celeba",
    prepare=tuple(
        f"vision.setup {kind} {{data}}/img_align_celeba {{data}}/{kind}" for kind in ("grayscale", "edge", "mask")
    ),
)

COHERENCES = ("mnist -> svhn", "svhn -> mnist", "joint")
LATENTS = ("mnist from z", "svhn from z")
COHERENCE = {
    "mmvae": {name: Published(x, False) for name, x in zip(COHERENCES, (86.4, 69.1, 42.1), strict=True)}
    | _published(LATENTS, "91.3 68.0"),
    "mvae": _published((*COHERENCES, *LATENTS), "9.5 9.3 12.7 95.7 9.1"),
}
MNIST_SVHN = tuple(
    Plan(
        "mnist_svhn",
        model + suffix,
        Setting(30, 0, f"{options} {data}"),
        None if suffix else Setting(2, 0, f"{demo} --limit 500"),
        (
            # its classifiers take minutes of a core, so the demo measures one model
            Measure("coherence", "analyse", data, "--n-samples 500" if model == "mmvae" else None),
            Measure("loglike", "loglike", f"{data} --limit 500", "--limit 20 --n-samples 50"),
        ),
        published=COHERENCE[model],
        dataset=dataset,
        note="The paper's figures are for real SVHN; ours are for the synthetic one." if suffix else "",
    )
    for suffix, data, dataset in (("", "", "mnist_svhn"), (", synthetic SVHN", "--svhn synthetic", "mnist"))
    for model, options, demo in (("mmvae", "", "--K 5"), ("mvae", "--model mvae --obj mvae", "--model mvae --obj mvae"))
)

PAIRINGS = ("ground truth", "joint", "image -> caption", "caption -> image")
CORRELATIONS = Measure("correlations", "analyse", "--feature-components 64", "--n-samples 200 --limit 200 --no-umap")
FEATURES = "cub.features --data-dir {data} --weights train {cuda}"  # the features that describe images
CUB = (
    Plan(
        "cub",
        "images",
        Setting(200, 0, "--model images"),
        None,
        (CORRELATIONS,),
        prepare=(FEATURES,),
        y="image",
    ),
    Plan(
        "cub",
        "features",
        Setting(50, 0, "--model features"),
        Setting(1, 0, "--model features --K 1 --limit 300"),
        (CORRELATIONS,),
        published=_published(PAIRINGS, "0.273 0.263 0.104 0.135"),
        prepare=(FEATURES,),
        y="feature",
        note="The paper's CUB features come from a network trained on ImageNet.",
    ),
)

EPISODES, DEMO_EPISODES = "--n-samples 20 --episodes 10", "--n-samples 2 --episodes 5 --n-way 10"
ACCURACY = Measure("accuracy", "classify", EPISODES, DEMO_EPISODES)
ONE_SHOT = Measure("one_shot", "classify", f"{EPISODES} --k-shot 1", f"{DEMO_EPISODES} --k-shot 1")
# the bound and its terms need only one sample
BOUND = Measure("bound", "loglike", "--n-samples 1 --set-size 1 --limit 300", "--n-samples 1 --set-size 1 --limit 20")
# few samples are effective for joint likelihoods: estimates lie below the truth
JOINT = Measure("loglike", "loglike", "--limit 25 --n-samples 40", "--limit 2 --n-samples 10")
ACCURACIES = {
    "deconv": {"statistician": 95.6, "resample": 94.0, "rescale": 95.3, "vhe": 95.6},
    "pixelcnn": {"statistician": 66.0, "resample": 4.9, "rescale": 62.8, "vhe": 98.8},
}
VHE = tuple(
    Plan(
        "vhe",
        f"{decoder}, {objective}",
        Setting(14, 1, f"--objective {objective}") if decoder == "deconv" else Setting(8, 0, "--decoder pixelcnn"),
        Setting(2, 1, f"--objective {objective} --limit 60")
        if decoder == "deconv"
        else Setting(1, 0, "--decoder pixelcnn --limit 60"),
        (ACCURACY, BOUND, *((ONE_SHOT, JOINT) if objective == "vhe" else ())),
        published={"5-shot, 20-way": Published(accuracy)}
        | (
            {"1-shot, 20-way": Published(95.2), "log p(character)/20": Published(-61.2)}
            if (decoder, objective) == ("pixelcnn", "vhe")
            else {}
        ),
        dataset="omniglot",
        starts_from="" if decoder == "deconv" else f"deconv, {objective}",
    )
    for decoder, accuracies in ACCURACIES.items()
    for objective, accuracy in accuracies.items()
)

PARTS = tuple(
    Plan(
        "mnist",
        f"{parts}, {model}",
        Setting(epochs, 0, f"{shared} {options}"),
        Setting(1, 0, f"{options} --limit {limit}"),
        (Measure("loglike", f"{parts} loglike", f"--limit {test_limit}", "--limit 20 --n-samples 20"),),
        train=f"{parts} train",
    )
    for parts, epochs, shared, limit, test_limit, variants in (
        (
            "halves",
            15,
            "",
            600,
            "1000",
            {"poe": "", "poe, dreg": "--obj dreg --K 8", "moe": "--fusion moe", "vmf": "--posterior vmf"},
        ),
        (
            "pixels",
            12,
            "--limit 12000 --batch-size 50 --lr 2e-3 --approx-m 1",
            100,
            "500 --n-samples 500",
            {"poe": "", "set": "--fusion set"},
        ),
    )
    for model, options in variants.items()
)

TRANSLATION = tuple(
    Plan(
        "translation",
        f"mvae, lambda {weight}",
        Setting(20, 5, f"--lambda-english {weight} --lambda-french {weight}"),
        Setting(2, 1, "--limit 1000") if weight == 5 else None,
        (Measure("loglike", "loglike", "--n-samples 100", "--limit 50 --n-samples 20"),),
        generated=True,
    )
    for weight in (1, 5)
)

FRACTIONS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0)
DEMO_FRACTIONS = "0.05 1"
WEAK = tuple(
    Plan(
        experiment,
        "mvae",
        Setting(15, 5),
        Setting(15, 5, f"--batch-size 50 --classifier-steps 200 --fractions {DEMO_FRACTIONS}")
        if experiment == "mnist"
        else None,
        (),
        train="weak_supervision",
        writes=("weak_supervision",),
    )
    for experiment in ("mnist", "fashionmnist")
)

TABLES = {
    "mvae-table2": Table(
        "Log-likelihoods, nats a test example",
        "Wu & Goodman 2018, arXiv 1802.05335, Table 2",
        (
            Figure("log p(x)", ("loglike", "estimates", "log p(image)", "mean")),
            Figure("log p(x,y)", ("loglike", "estimates", "log p(image,{y})", "mean")),
            Figure("log p(x|y)", ("loglike", "estimates", "log p(image|{y})", "mean")),
        ),
        (*DIGITS, MULTIMNIST, *FACES),
    ),
    "vision-table": Table(
        "Six views of a face, nats a test example (nothing was published)",
        "Wu & Goodman 2018, arXiv 1802.05335, section 5.4",
        tuple(
            Figure(f"log p({view})", ("loglike", "estimates", f"log p({view})", "mean"))
            for view in ("all six", "image", "gray", "edge", "mask", "obscured", "watermark")
        ),
        (VISION,),
    ),
    "mmvae-table": Table(
        "Coherence of generated samples, and digit classification from latents, % of test pairs",
        "Shi et al. 2019, arXiv 1911.03393, Tables 1 and 2",
        (
            *(Figure(name, ("coherence", "figures", f"coherence, {name}"), True) for name in COHERENCES),
            *(Figure(name, ("coherence", "figures", f"latent accuracy, {name.split()[0]}"), True) for name in LATENTS),
        ),
        MNIST_SVHN,
    ),
    "cub-table": Table(
        "Correlation of birds and captions",
        "Shi et al. 2019, arXiv 1911.03393, section 4.2",
        tuple(Figure(name, ("correlations", "correlations", name.replace("image", "{y}"))) for name in PAIRINGS),
        CUB,
    ),
    "vhe-table": Table(
        "Classification of test characters (%), and the code's KL (nats)",
        "Hewitt et al. 2018, arXiv 1807.08919",
        (
            Figure("5-shot, 20-way", ("accuracy", "accuracy", "mean"), True),
            Figure("1-shot, 20-way", ("one_shot", "accuracy", "mean"), True),
            Figure("KL of the character's code", ("bound", "estimates", "bound: KL of c", "mean")),
            Figure("bound, nats an image", ("bound", "estimates", "bound", "mean")),
            Figure("log p(image|5 others)", ("bound", "estimates", "log p(image|5 others)", "mean")),
            Figure("log p(character)/20", ("loglike", "estimates", "log p(character)/20", "mean")),
        ),
        VHE,
    ),
    "poe-vae-table": Table(
        "Parts of MNIST's images as modalities, nats a test image (nothing was published)",
        "modular PoE-VAE",
        tuple(
            Figure(name, ("loglike", "estimates", name, "mean"))
            for name in ("log p(image)", "log p(top)", "log p(bottom|top)")
        ),
        PARTS,
    ),
    "translation-table": Table(
        "Translations of held-out numbers without a wrong word, %, and nats a number (nothing was published)",
        "our generated pairs",
        (
            *(
                Figure(f"{a} -> {b}", ("loglike", "estimates", f"accuracy, {a} -> {b}", "mean"), True)
                for a, b in (("english", "french"), ("french", "english"))
            ),
            Figure("log p(english,french)", ("loglike", "estimates", "log p(english,french)", "mean")),
        ),
        TRANSLATION,
    ),
    "weak-supervision": Table(
        "Labels inferred from images, % of test images, by the number of pairs in training",
        "Wu & Goodman 2018, arXiv 1802.05335, Figure 3",
        tuple(
            Figure(
                f"{label}, {100 * fraction:g} % paired",
                ("weak_supervision", "results", ("fraction", fraction), key),
                True,
            )
            for fraction in FRACTIONS
            for key, label in (("model", "MVAE"), ("classifier", "classifier of the pairs"))
        ),
        WEAK,
    ),
}
