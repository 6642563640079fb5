"""Results of runs that never were, as result.json holds them."""

from tools.reproduction.results import Result

import msgspec


def contents(model="mvae", seed=0, table="mvae-table2", experiment="mnist", given=80, **measured):
    about = {"table": table, "experiment": experiment, "model": model, "seed": seed, "demo": False, "threads": 1}
    about |= {"epochs": {"planned": 80, "given": given}, "commands": ["python -m mnist.train"], "device": "a CPU"}
    about |= {
        "commit": "0123456789ab+",
        "date": "2026-11-20",
        "versions": {"torch": "2"},
        "seconds": 90.0,
        "examples": 50_000,
        "config": {},
    }
    return about | {"measured": measured}


def result(*args, **kwargs):
    return msgspec.convert(contents(*args, **kwargs), Result)


def loglike(x):
    by_proposal = {"log p(image)": x, "log p(image), z from q(z|image,text)": x - 0.5, "log p(image,text)": x - 1}
    return {"estimates": means(by_proposal)}


def means(values):
    return {name: {"mean": value} for name, value in values.items()}
