"""The homoencoder's examples recover what their data were made of, and its README's steps run."""

import math
import re
from pathlib import Path

import vhe
from vhe import VHE, example_czx, example_factorial, example_hierarchical

import pytest
import torch
from torch import nn, optim
from torch.distributions import Normal


def deficit(recovered):
    exact, bound = recovered["log p(data)/N and its bound"]
    return exact - bound


@pytest.mark.slow
def test_classes_and_elements_are_recovered(capsys):
    recovered = example_czx.main(example_czx.Config(epochs=25))
    n, k = example_czx.ELEMENTS, example_czx.K_SHOT
    assert deficit(recovered) == pytest.approx((n - k) / (2 * k * n), abs=0.02), "what the docstring says"
    assert recovered["correlation of c's codes"][1] > 0.98
    assert recovered["correlation of z's codes"][1] > 0.93
    assert recovered["noise"][1] == pytest.approx(example_czx.NOISE, rel=0.1)
    truth, spread = recovered["spread of a class's elements"]
    assert spread == pytest.approx(truth, rel=0.1), "of predictive samples, given five others"
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(recovered) + 2 * (2 + example_czx.K_SHOT)
    assert all(len(line.split()) == len(example_czx.A) for line in lines[-example_czx.K_SHOT :])


@pytest.mark.slow
def test_three_levels_are_recovered():
    recovered = example_hierarchical.main(example_hierarchical.Config(epochs=6))
    assert 0 < deficit(recovered) < 0.08
    truths, values = zip(*(pair for name, pair in recovered.items() if name.startswith(("dev", "of"))), strict=True)
    assert truths == (2, 1, 0.5)
    assert values == pytest.approx(truths, rel=0.1)


@pytest.mark.slow
def test_contents_and_styles_are_recovered():
    recovered = example_factorial.main(example_factorial.Config(epochs=40))
    assert 0 < deficit(recovered) < 0.15
    for name in ("correlation of contents' codes", "correlation of styles' codes"):
        assert recovered[name][1] > 0.95
    truth, error = recovered["error in unseen pairs"]
    assert error == pytest.approx(truth, rel=0.15)


def by_samples(x, mu, sigma):
    """log p(data)/N, where the means of x (N, D) are drawn from the prior, (S, N, D)."""
    log_p = Normal(mu, sigma).log_prob(x).sum(dim=(1, 2))
    return (log_p.logsumexp(dim=0).item() - math.log(len(mu))) / len(x)


def test_exact_log_likelihoods(monkeypatch):
    """For two to four elements, beside the mean of p(x|latent variables) over the prior."""
    n, of = 300_000, torch.randn
    for example in (example_czx, example_hierarchical):
        for name, size in {"CLASSES": 1, "ELEMENTS": 2, "FAMILIES": 1, "DIMENSIONS": 1}.items():
            if hasattr(example, name):
                monkeypatch.setattr(example, name, size)
    monkeypatch.setattr(example_hierarchical, "CLASSES", 2)

    x = example_czx.draw()[0]
    mu = of(n, 1, 1) * example_czx.A + of(n, 2, 1) * example_czx.B
    assert example_czx.exact_log_p(x) == pytest.approx(by_samples(x, mu, example_czx.NOISE), abs=0.03)

    x = example_hierarchical.draw()[0]
    mu = 2.0 * of(n, 1, 1) + 1.0 * of(n, 2, 1).repeat_interleave(2, dim=1)
    assert example_hierarchical.exact_log_p(x) == pytest.approx(by_samples(x, mu, 0.5), abs=0.03)

    x, *labels = (of_each[[0, 1]] for of_each in example_factorial.draw()[:3])  # one content, two styles
    mu = of(n, 1, 1) * example_factorial.A + of(n, 2, 1) * example_factorial.B
    exact = example_factorial.exact_log_p(x, *labels)
    assert exact == pytest.approx(by_samples(x, mu, example_factorial.NOISE), abs=0.03)


# The code of the original's README, literally but for spaces at line ends, and what goes into its gaps, in turn.
MODULES = """
import torch
from vhe import VHE, DataLoader

class Px(nn.Module): # p(x|c,z)
    def __init__(self):
        super().__init__()
        ... #Define any params

    def forward(self, c, z, x=None):
        mu, sigma = ...
        dist = torch.distributions.normal.Normal(mu, sigma)

        if x is None: x = dist.rsample() # Sample x if not given
        log_prob = dist.log_prob(x).sum(dim=1) # Should be a 1D vector with nBatch elements
        return x, log_prob

class Qc(nn.Module): # q(c|D)
    def __init__(self): ...

    def forward(self, inputs, c=None):
        # inputs is a (batch * |D| * ...) size tensor, containing the support set D
        ...
        return c, log_prob

class Qz(nn.Module): # q(z|x,c)
    def __init__(self): ...

    def forward(self, inputs, c, z=None):
        # inputs is a (batch * 1 * ...) size tensor, containing the input example x
        ...
        return z, log_prob
"""
MODEL = """
model = VHE(encoder=[Qc(), Qz()], decoder=Px()) #Use default prior c,z ~ N(0, 1)
# or: model = VHE(encoder=[Qc(), Qz()], decoder=Px(), prior=...)
"""
LOADER = """
data_loader = DataLoader(data=data,
        labels={"c":class_labels, # The class label for each element in data
                "z":range(len(data))},  # A unique label for each element in data
        k_shot={"c":5, "z":1}, # Number of elements given to each encoder
        batch_size=batch_size)
"""
TRAINING = """
optimiser = optim.Adam(vhe.parameters(), lr=1e-3)
for epoch in range(...):
    for batch in data_loader:
        optimiser.zero_grad()
        log_prob = model.score(inputs=batch.inputs, sizes=batch.sizes, x=batch.target)
        (-log_prob).backward() # Negative to get loss
        optimiser.step()
"""
NETWORK = """def __init__(self):
        super().__init__()
        self.linear, self.log_sigma = nn.Linear({}, 1), nn.Parameter(torch.zeros(1))"""
DISTRIBUTION = """dist = torch.distributions.Normal({}, self.log_sigma.exp())
        if {} is None: {} = dist.rsample()
        log_prob = dist.log_prob({}).sum(dim=1)
        return"""
MODULES_GAPS = [
    ("... #Define any params", "self.linear, self.log_sigma = nn.Linear(2, 3), nn.Parameter(torch.zeros(1))"),
    ("mu, sigma = ...", "mu, sigma = self.linear(torch.cat([c, z], dim=1)), self.log_sigma.exp()"),
    ("def __init__(self): ...", NETWORK.format(3)),
    ("...\n        return", DISTRIBUTION.format("self.linear(inputs).mean(dim=1)", *"ccc")),
    ("def __init__(self): ...", NETWORK.format(4)),
    ("...\n        return", DISTRIBUTION.format("self.linear(torch.cat([inputs[:, 0], c], dim=1))", *"zzz")),
]


def run(code, names, gaps=()):
    for gap, filling in gaps:
        assert gap in code
        code = code.replace(gap, filling, 1)
    exec(code, names)


def original(epochs):
    """Run the four steps of the original's README; return the names that they define."""
    data, class_labels, *_ = example_czx.draw()
    names = {"nn": nn, "optim": optim, "data": data, "class_labels": class_labels, "batch_size": 50}
    run(MODULES, names, MODULES_GAPS)
    run(MODEL, names)
    run(LOADER, names)
    names["vhe"] = names["model"]  # which it calls by both names
    run(TRAINING, names, [("range(...)", f"range({epochs})")])
    return names


@pytest.mark.slow
def test_the_readmes_steps():
    """They learn, if not to the end at their rate of 0.001: example_czx.py does."""
    torch.manual_seed(0)
    names = original(epochs=20)
    untrained = VHE(encoder=[names["Qc"](), names["Qz"]()], decoder=names["Px"]())
    bounds = []
    for model in (untrained, names["model"]):
        with torch.no_grad():
            scores = [model.score(b.inputs, b.sizes, x=b.target).item() for b in names["data_loader"]]
        bounds.append(sum(scores) / len(scores))
    assert bounds[0] + 2 < bounds[1] < example_czx.exact_log_p(names["data"]) < bounds[1] + 2.5


def test_the_python_of_our_readme():
    readme = Path(vhe.__file__).with_name("README.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    names = {}
    exec(code, names)
    assert names["of_class"].shape == (1, 3)
    assert names["of_new_classes"].shape == (4, 3)
