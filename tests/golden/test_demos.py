"""Every script of every folder on its built-in data: the files that it writes, what it prints, its figures.

Figures are the same to 1e-6 on the processor that wrote them, with as many threads; on others, where sums are rounded
otherwise, to 1e-3, but for those of `UNSTABLE`. A text that a model generates counts as a figure, its checksum.
"""

import importlib
import json
import math
import re
import sys
import zlib
from pathlib import Path

from common.progress import print_once
from tests.golden import FOLDER, WRITES, check
from tests.helpers.scripts import run_script, scripts

import pytest
import torch

TRAIN = "--demo --epochs 2 --limit 60 --batch-size 20 --n-latents 4 --save-dir run"
MNIST = (
    f"train.py {TRAIN}\nsample.py run\nsample.py run --condition-on-text 1 --demo\nsample.py run --reconstruct --demo"
)
SCORES = "loglike.py run --demo --limit 10 --n-samples 20 --json loglike.json"
ANALYSIS = "analyse.py run --demo --limit 40 --n-samples 30 --no-umap --json analyse.json"
WEAK = "--demo --epochs 2 --limit 100 --fractions 0.5 --seeds 0 --classifier-steps 3 --n-latents 4"
COMPARED = "--seeds 0 --n-test 5 --n-samples 5 --jobs 1 --save-dir compared"
MORE_FACES = "--condition-on-attrs Male Smiling"
CALLS = {  # by folder, or by folder and model
    "mnist": f"""{MNIST}
        sample.py run --condition-on-image 5 --demo
        sample.py run --mixture 3 --demo --limit 60
        sample.py run --condition-on-text 1 --sampler posterior
        {SCORES}
        {ANALYSIS}
        weak_supervision.py {WEAK} --save-dir weak
        gradients.py run --demo --limit 5 --n-samples 3
        label_expert.py run --demo --limit 40 --steps 3 --json label_expert.json""",
    "mnist, halves and pixels": f"""halves.py train {TRAIN}
        halves.py sample run --demo --observed top
        halves.py loglike run --demo --limit 10 --n-samples 20 --json halves.json
        pixels.py train {TRAIN.replace("run", "pixels")} --hidden 8 --approx-m 1
        pixels.py sample pixels --demo --observed 0.1
        pixels.py loglike pixels --demo --limit 3 --n-samples 5 --json pixels.json
        compare.py halves --demo --variants hidden=8 --options "epochs=2 limit=60" {COMPARED}""",
    "fashionmnist": f"{MNIST}\n{SCORES}\n{ANALYSIS}\nweak_supervision.py {WEAK} --save-dir weak",
    "multimnist": f"""{MNIST.replace("text 1 --demo", "text 12")}\n{SCORES}\n{ANALYSIS}
        weak_supervision.py {WEAK} --save-dir weak""",
    "celeba": f"""{MNIST.replace("--condition-on-text 1 --demo", MORE_FACES)}\n{SCORES}\n{ANALYSIS}
        weak_supervision.py {WEAK} --save-dir weak""",
    "celeba19": f"{MNIST.replace('--condition-on-text 1 --demo', MORE_FACES)}\n{SCORES}\n{ANALYSIS}",
    "vision": f"""train.py {TRAIN}\nsample.py run\nsample.py run --reconstruct --demo\n{SCORES} --by-size
        {ANALYSIS.replace(" --n-samples 30", "")}""",
    "translation": f"""train.py {TRAIN}\nsample.py run\nsample.py run --condition-on-english twenty-one
        sample.py run --reconstruct --demo\n{SCORES}\nanalyse.py run --demo --limit 40 --json analyse.json""",
    "mfeat": f"""train.py {TRAIN} --missing 0.2\nsample.py run\nsample.py run --given fou mor --demo
        sample.py run --mixture 3 --demo --limit 60\n{SCORES} --target digit --given fou mor
        analyse.py run --demo --limit 40 --n-samples 5 --json analyse.json""",
    "mnist_svhn": f"""train.py {TRAIN} --K 2\nsample.py run\nsample.py run --given svhn --demo
        sample.py run --traverse\n{SCORES}\n{ANALYSIS}""",
    "mnist_svhn, cmvae": f"train.py {TRAIN} --model cmvae\nsample.py run --cluster 3\n{SCORES}\n{ANALYSIS}",
    "polymnist": f"train.py {TRAIN}\nsample.py run\nsample.py run --given m0 m2 --demo\n{SCORES} --by-size\n{ANALYSIS}",
    "cub": f"""train.py {TRAIN} --K 2\nsample.py run --demo\nsample.py run --given feature --demo
        sample.py run --demo --condition-on-text "a small bird"\n{SCORES}
        analyse.py run --demo --limit 10 --n-samples 5 --components 2 --no-umap --json analyse.json""",
    "vhe": """train.py --demo --epochs 2 --limit 60 --save-dir run
        sample.py run --demo\nsample.py run --new characters
        analyse.py run --demo --n-way 2 --episodes 2 --n-samples 1 --json analyse.json
        loglike.py run --demo --limit 4 --n-samples 2 --json loglike.json
        example_czx.py --epochs 2\nexample_hierarchical.py --epochs 2\nexample_factorial.py --epochs 2""",
}
# those that read files of their data alone, or are called in processes
ELSEWHERE = {
    *("celeba19/weak_supervision.py", "cub/features.py", "mnist_svhn/make_idx.py", "multimnist/generate.py"),
    "vision/setup.py",
}

# figures that rounding changes by more than 1e-3
UNSTABLE = re.compile(
    r"^demos/cub, "  # two epochs go another way, since the likelihood of a feature has the scale 0.01
    r"|^demos/vhe, .*(kl|KL)"
    r"|effective samples|variance of log-weights"  # of few large weights
    r"|accuracy|classifier[,_ ]|coherence|macro|targets|spread|clusters|recognised|attributes|F1"  # shares of choices
    r"|weak_supervision.json, results|\.txt"
)


def masked(text: str) -> list[str]:
    """The lines of an output without their numbers, the widths of tables' columns, and progress bars."""
    lines = [line for line in re.sub(r"[^\n]*\r", "", text).splitlines() if " left, " not in line]
    numbers = (re.sub(r"(?<!\w)-?\d[\d,]*(\.\d+)?(e[-+]?\d+)?|\bnan\b", "#", line) for line in lines)
    return [re.sub(r"--+", "--", re.sub(r"  +", " ", line)).rstrip() for line in numbers if line.strip()]


@pytest.mark.slow
@pytest.mark.parametrize("name", CALLS)
def test_the_scripts_of_a_folder_on_its_demo(name, tmp_path, monkeypatch, capsys):
    folder, found, known = name.split(",")[0], {}, set()
    monkeypatch.chdir(tmp_path)
    for line in CALLS[name].splitlines():
        script, *args = re.findall(r'"[^"]*"|\S+', line)
        args = [arg.strip('"') for arg in args]
        module = importlib.import_module(f"{folder}.{script.removesuffix('.py')}")
        monkeypatch.setattr(sys, "argv", [script, *args])
        capsys.readouterr()
        print_once.cache_clear()  # another test of this process may have printed the same message
        run_script(module, args)
        printed = capsys.readouterr()
        now = {path.as_posix() for path in Path().rglob("*") if path.is_file()}
        written, known = sorted(now - known), now
        call = {"files": written, "printed": masked(printed.out), "stderr": masked(printed.err)}
        if script == "sample.py":  # prints what it generates before the names of the files
            call["printed"] = [line for line in call["printed"] if "/samples/" in line]
        for path in (Path(x) for x in written):
            if path.parent.name == "samples" and path.suffix == ".txt":
                call[path.name] = zlib.crc32(path.read_bytes())
            elif path.suffix == ".json" and path.name != "config.json":
                call[path.name] = figures(json.loads(path.read_text()))
            elif path.suffix == ".jsonl":
                call[path.name] = [figures(json.loads(line)) for line in path.read_text().splitlines()]
        found[" ".join(line.split())] = call
    cpu = [line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()[1:7]]
    here = f"{', '.join(cpu)}, {torch.get_num_threads()} thread"
    file = f"demos/{name.replace(', ', '_').replace(' ', '_')}"
    writer = here if WRITES else (FOLDER / f"{file}.json").read_text().split('"')[3]

    def tolerance(place):
        return 1e-6 if here == writer else math.inf if UNSTABLE.search(place) else 1e-3

    check(file, {"written on": writer} | found, tolerance)


def figures(x):
    """A value of JSON without what depends on the machine."""
    machine = {"seconds", "examples_per_second", "rate", "threads", "commit", "date", "device", "versions", "started"}
    machine |= {"checkpoint"}
    if isinstance(x, dict):
        return {key: figures(value) for key, value in x.items() if key not in machine}
    return [figures(value) for value in x] if isinstance(x, list) else x


def test_every_script_of_a_folder_is_called():
    called = {f"{name.split(',')[0]}/{line.split()[0]}" for name, calls in CALLS.items() for line in calls.splitlines()}
    folders = {name.split(",")[0] for name in CALLS}
    assert called | ELSEWHERE >= {script for script in scripts() if script.split("/")[0] in folders}
