"""What torchrun runs in tests/common/execution/test_processes.py: `-m tests.helpers.distributed_jobs OUT`, a folder."""

import sys
from pathlib import Path
from types import SimpleNamespace

import cub.analyse
import mnist_svhn.analyse
import polymnist.train
from common import io
from common.data import Examples
from common.distributions import DiagonalGaussian
from common.execution import processes, random_states
from common.io import save_tensors
from common.objectives import MvaeElbo
from cub.cca import cca
from mnist.model import build
from mnist_svhn import classifier as classifiers
from mnist_svhn import train as pairs
from mnist_svhn.model import build as pairs_of_images
from polymnist.model import build as images_of_a_digit
from reports import plots, tables
from reports.metrics import Judge, cross_coherence, divergences, joint_coherence, read_right
from tests.helpers.coherence import JUDGES, SOURCES, examples, model
from tests.helpers.homoencoders import Code, Noisy, characters_of
from training import objective_of
from training.options import as_json
from training.steps import Step
from vhe import VHE, analyse
from vhe.model import build as characters

import torch

NEWER = ("mvtcae", "crmvae", "mmjsd", "dmvae", "mmvae+", "cmvae", "jnf")  # but mopoe-published, which draws components
SIZES = (6, 5, 1)  # of batches: of two processes, both have as many, one has more, one has none


OPTIONS = {"n_latents": 4, "model": "mvae", "lambda_image": 1.0, "lambda_text": 2.0, "posterior": "gaussian"}


def summed_gradients():
    """Gradients of batches of each size, of a model without noise; of the last one, only where both have labels."""
    DiagonalGaussian.rsample = lambda self, shape=(): self.mean.expand(*shape, *self.mean.shape)
    torch.manual_seed(0)
    model = build(SimpleNamespace(**OPTIONS))
    n = sum(SIZES)
    mask = torch.ones(n, 2, dtype=torch.bool)
    mask[::3, 1] = False
    examples = Examples({"image": torch.rand(n, 1, 28, 28), "text": torch.randint(10, (n,))}, mask=mask)
    objective = MvaeElbo(model)
    step = Step(objective, torch.optim.SGD(objective.parameters(), lr=0.0, fused=True))
    found = []
    for index in torch.randperm(n, generator=torch.Generator().manual_seed(1)).split(SIZES):
        step(examples, index[processes.local_rows()], len(index), 0.5)
        found.append([x.grad for x in objective.parameters()])
    return found


def of_newer_models():
    """The gradients of one step of each newer model without noise, {model: gradients}; some examples lack an image."""
    DiagonalGaussian.rsample = lambda self, shape=(): self.mean.expand(*shape, *self.mean.shape)
    names, mask = ("m0", "m1", "m2"), torch.ones(6, 3, dtype=torch.bool)
    mask[1, 1] = mask[4, 0] = False
    found = {}
    for name in NEWER:
        torch.manual_seed(0)
        record = polymnist.train.MODELS[name]
        private = {"n_private": 2} if record.private else {}
        config = polymnist.train.Config(model=name, n_latents=4, n_modalities=3, posterior="gaussian", **private)
        objective = objective_of(config, images_of_a_digit(config))
        images = {name: torch.rand(6, 3, 28, 28) for name in names}
        step = Step(objective, torch.optim.SGD(objective.parameters(), lr=0.0, fused=True))
        examples = Examples(images, mask=mask if record.unpaired else None)
        step(examples, torch.arange(6)[processes.local_rows()], 6, 0.5)
        found[name] = [x.grad for x in objective.parameters()]
    return found


def anew():
    """A draw of a run that has no random state to go on from."""
    torch.manual_seed(0)
    random_states.restore(None, 0, 0, 0, torch.device("cpu"))
    return torch.rand(1).item()


@torch.no_grad()
def without_noise():
    """What is said of odd numbers of examples, where no draw has a part."""
    torch.manual_seed(0)
    numbers = processes.map_rows(7, 2, lambda rows: {"n": rows, "squares": rows.view(-1, 1) ** 2})
    digits = Examples({"svhn": torch.rand(501, 3, 32, 32)}), torch.randint(10, (501, 1))
    brightest = Judge(("svhn",), lambda values: values["svhn"].flatten(1)[:, :10].argmax(dim=1, keepdim=True))
    images = torch.randint(256, (21, 3, 64, 64), dtype=torch.uint8)
    described = cub.analyse.descriptor("image", SimpleNamespace(demo=True))(images)
    captions = described[:, :4] + 0.1 * torch.randn(21, 4)
    sure, sets = VHE(Code(1.0, 1e-12), Noisy()), torch.randn(30, 2, 1).cumsum(dim=1)
    episodes = analyse.Config(Path(), n_way=5, k_shot=1, episodes=7, n_samples=2)
    pixels_to_values = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12288, sum(cub.classifier.VALUES)))
    return {
        **numbers,
        "judged": read_right(brightest, *digits),
        "described": described,
        "similarity": cca(described, captions, 2).similarity(described, captions),
        "read": cub.analyse.read_all(pixels_to_values, images),
        **divergences(model(), Examples({"a": torch.rand(1001, 4), "b": torch.rand(1001, 4)}), SOURCES),
        "episodes": analyse.accuracies(sure, characters_of(sets), episodes),
    }


def with_noise():
    """Coherences that are known, of models that are wrong at times."""
    torch.manual_seed(2)
    processes.seed_each_process()
    right = cross_coherence(model((0.3, 0.0), (0.0, 0.2)), *examples(4001), JUDGES, SOURCES)
    right["joint"] = joint_coherence(model(decoder=(0.0, 0.25)), 5001, JUDGES)
    return {name: x.double().mean().item() for name, x in right.items()}


def untrained(folder):
    """Checkpoints of mnist_svhn and vhe in a folder."""
    torch.manual_seed(0)
    of_pairs = as_json(pairs.Config(demo=True, n_latents=4))
    of_characters = {"model": "character", "decoder": "deconv", "n_latents": 4, "k_shot": 2, "test_alphabets": []}
    for name, config, make in (("mnist_svhn", of_pairs, pairs_of_images), ("vhe", of_characters, characters)):
        network = make(SimpleNamespace(**config))
        checkpoint = {"experiment": name, "config": config, "state_dict": network.state_dict()}
        save_tensors(folder / f"{name}.pt", checkpoint)


def analyses(models, out):
    """The figures of two scripts, and what they wrote."""
    written = []

    def write(path, content):
        written.append(path.name)
        io.write_atomically(path, content)

    tables.write_atomically = write
    plots.save = lambda figure, path: written.append(path.name)
    classifiers.STEPS = 40
    given = {"demo": True, "umap": False, "limit": 301, "n_samples": 301, "json": out / "pairs.json", "data_dir": out}
    found = mnist_svhn.analyse.main(mnist_svhn.analyse.Config(models / "mnist_svhn.pt", **given))
    given = {"demo": True, "limit": 20, "n_way": 5, "k_shot": 2, "episodes": 7, "n_samples": 2, "n_queries": 3}
    told = analyse.main(analyse.Config(models / "vhe.pt", json=out / "characters.json", **given))
    return {"figures": found, "told": told, "written": written, "seed": torch.initial_seed()}


if __name__ == "__main__":
    out = Path(sys.argv[1])
    processes.start()
    rows = torch.arange(7.0).view(7, 1)[processes.local_rows()]
    found = {"rows": processes.gather_rows(rows), "world": processes.world_size()}
    found |= {
        "any": (processes.any_process(processes.rank() == 1), processes.any_process(False)),
        "first": processes.gather(processes.on_first_process(processes.rank)),
        "unlike": processes.gather(anew()),
        "without noise": processes.gather(without_noise()),
        "with noise": processes.gather(with_noise()),
        "analyses": processes.gather(analyses(out, out)),
        # the last ones, since no model draws after them
        "gradients": processes.gather(summed_gradients()),
        "newer": processes.gather(of_newer_models()),
    }
    if processes.rank() == 0:
        torch.save(found, out / "found.pt")
    print("process", processes.rank())
    processes.end()
    threads = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    assert not [name for name in threads if "gloo" in name], threads
