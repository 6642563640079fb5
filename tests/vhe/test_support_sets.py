"""Support sets: which examples they hold, how often, and in which version."""

from collections import Counter
from itertools import permutations

from common.errors import InputError
from vhe import DataLoader, SupportSets, Transform
from vhe.objectives import OBJECTIVES, HomoencoderObjective

import numpy as np
import pytest
import torch

N = 12
LABELS = ["b"] * 4 + ["a"] * 3 + ["c"] * 5
DATA = torch.arange(N)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def sets_of(data, k, n=1, **options):
    """A batch with each of the examples n times."""
    labels = {"c": LABELS, "z": range(N)}
    examples = SupportSets(data, labels, {"c": k, "z": 1}, generator=generator(), **options)
    return examples[torch.arange(N).repeat(n)]


def assert_uniform(drawn, outcomes):
    """All outcomes and no others, each about as often: chi-squared, at 5 standard deviations."""
    counts = Counter(tuple(x) for x in drawn.tolist())
    assert set(counts) == set(outcomes)
    expected = len(drawn) / len(outcomes)
    chi2 = sum((n - expected) ** 2 / expected for n in counts.values())
    assert chi2 < len(outcomes) - 1 + 5 * (2 * (len(outcomes) - 1)) ** 0.5


@pytest.mark.parametrize("exclude", [False, True])
@pytest.mark.parametrize("k", [1, 2, 3])
def test_all_support_sets_of_a_group_are_equally_likely_in_any_order(k, exclude):
    k = min(k, 2) if exclude else k
    batch = sets_of(DATA, k, 6000, exclude_target=exclude)
    sets = batch.inputs["c"].view(6000, N, k)
    for i in (0, 3, 5, 11):
        group = [j for j in range(N) if LABELS[j] == LABELS[i] and not (exclude and j == i)]
        assert_uniform(sets[:, i], list(permutations(group, k)))


def test_a_batch_holds_targets_their_own_support_sets_and_the_sizes_of_their_groups():
    batch = sets_of(torch.randn(N, 2, 3), 3)
    assert batch.target.shape == (N, 2, 3)
    assert batch.inputs["c"].shape == (N, 3, 2, 3)
    torch.testing.assert_close(batch.inputs["z"], batch.target[:, None])
    assert batch.sizes["c"].tolist() == [4.0] * 4 + [3.0] * 3 + [5.0] * 5
    assert batch.sizes["z"].tolist() == [1.0] * N
    assert len(batch) == N


@pytest.mark.parametrize("labels", [[0, 0, 1, 1], torch.tensor([7, 7, 3, 3]), np.array(["x", "x", "y", "y"])])
def test_labels_and_data_of_any_kind(labels):
    for data in ([1.5, 2.5, 3.5, 4.5], [torch.tensor(x) for x in (1.5, 2.5, 3.5, 4.5)], np.array([1.5, 2.5, 3.5, 4.5])):
        batch = SupportSets(data, {"c": labels}, {"c": 1})[torch.arange(4)]
        assert batch.target.tolist() == [1.5, 2.5, 3.5, 4.5] and batch.sizes["c"].tolist() == [2.0] * 4


WORDS = ["ant", "bee", "cat", "dog", "elephant", "fox"]


@pytest.mark.parametrize("data", [WORDS, [torch.arange(n) for n in range(6)], [None, 1, "two", 3.0, [4], object()]])
def test_data_that_make_no_tensor_stay_as_they_are(data):
    labels, number = {"c": [0, 0, 0, 1, 1, 1], "z": range(6)}, {id(x): i for i, x in enumerate(data)}
    loader = DataLoader(data, labels, {"c": 2, "z": 1}, batch_size=4, generator=generator())
    seen = []
    for batch in loader:
        for target, of_class, (itself,) in zip(batch.target, batch.inputs["c"], batch.inputs["z"], strict=True):
            i, others = number[id(target)], {number[id(x)] for x in of_class}
            assert itself is target and len(others) == 2 and {j // 3 for j in others} == {i // 3}
            seen.append(i)
    assert sorted(seen) == list(range(6)) and len(batch) == 2
    assert loader.examples.to(torch.device("meta")) is loader.examples


def test_transforms_of_lists():
    def repeat(words, n):
        return [word * n for word in words]

    transforms = [
        Transform(repeat, [1, 2], ["c"]),
        Transform(lambda words, mark: [w + mark for w in words], ["?", "!"]),
    ]
    examples = SupportSets(WORDS, {"c": [0] * 6}, {"c": 12}, transforms, generator=generator())
    batch = examples[torch.arange(6).repeat(20)]
    for i, (target, support) in enumerate(zip(batch.target, batch.inputs["c"], strict=True)):
        assert sorted(support) == sorted(word * n + target[-1] for word in WORDS for n in (1, 2))
        assert target.startswith(WORDS[i % 6])
    assert set(batch.target) == {word * n + mark for word in WORDS for n in (1, 2) for mark in "?!"}
    assert batch.sizes["c"].tolist() == [12.0] * 120


def test_an_epoch_has_each_example_once_in_an_order_of_the_generator():
    def epochs(seed):
        loader = DataLoader(DATA, {"c": LABELS}, {"c": 2}, 5, generator=generator(seed))
        assert len(loader) == 3
        return [[(b.target.tolist(), b.inputs["c"].tolist()) for b in loader] for _ in range(2)]

    first, second = epochs(0)
    assert [len(target) for target, _ in first] == [5, 5, 2], "the last batch is smaller"
    assert sorted(x for target, _ in first for x in target) == list(range(N))
    assert first != second
    assert epochs(0) == [first, second]
    assert epochs(1) != [first, second]


def add(x, arg):
    return x + arg


def test_a_transform_makes_versions_of_a_group_groups_of_their_own():
    """As rotations make characters: all of a support set have the target's version, and sizes stay."""
    batch = sets_of(DATA, 3, 2000, transforms=[Transform(add, [0, 100, 200, 300])])
    version = batch.target // 100
    assert_uniform(version[:, None], [(i,) for i in range(4)])
    assert (batch.inputs["c"] // 100 == version[:, None]).all()
    assert (batch.inputs["z"][:, 0] == batch.target).all()
    assert batch.sizes["c"][:N].tolist() == [4.0] * 4 + [3.0] * 3 + [5.0] * 5


@pytest.mark.parametrize("exclude", [False, True])
def test_a_transform_whose_labels_are_shared_enlarges_the_groups(exclude):
    """The support sets' elements differ, as pairs of an example and a version, which all are equally likely."""
    transforms = [Transform(add, [0, 100], ["c"]), Transform(add, [0, 1000, 2000])]
    batch = sets_of(DATA, 2, 20_000, transforms=transforms, exclude_target=exclude)
    assert batch.sizes["c"][:N].tolist() == [8.0] * 4 + [6.0] * 3 + [10.0] * 5
    assert (batch.inputs["c"] // 1000 == batch.target[:, None] // 1000).all(), "not shared: the target's"
    assert (batch.inputs["z"][:, 0] == batch.target).all()
    of_five = batch.target == 105  # one version of one example
    members = [i + version for i in (4, 5, 6) for version in (0, 100) if not (exclude and i + version == 105)]
    assert_uniform(batch.inputs["c"][of_five], list(permutations(members, 2)))


def test_styles_are_groups_of_one_label_that_a_transform_does_not_share():
    """Content x style: a style's support sets hold any example in the target's version."""
    labels = {"c": LABELS, "s": torch.zeros(N)}
    examples = SupportSets(DATA, labels, {"c": 2, "s": 2}, [Transform(add, [0, 100], ["c"])], generator=generator())
    batch = examples[torch.arange(N).repeat(2000)]
    assert batch.sizes["s"].unique().tolist() == [N]
    assert (batch.inputs["s"] // 100 == batch.target[:, None] // 100).all()
    assert_uniform(batch.inputs["s"] % 100, list(permutations(range(N), 2)))
    assert (batch.inputs["c"] // 100).float().mean().item() == pytest.approx(0.5, abs=0.02), "a content's hold any"


def test_large_groups_are_sampled_to_their_ends():
    n = 2**25  # beyond the resolution of float32
    examples = SupportSets(DATA, {"c": LABELS}, {"c": 1}, generator=generator())
    places = examples._distinct(torch.full((100_000,), n), 1)
    assert places.min() < n // 1000 and places.max() > n - n // 1000
    assert (places % 2).double().mean().item() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_objectives_differ_in_what_is_scored_and_how_kls_are_weighed(name):
    seen = {}

    class Model(torch.nn.Module):
        observed = "x"

        def bound(self, inputs, sizes, beta, x):
            seen.update(inputs=inputs, sizes=sizes, x=x, beta=beta)

    batch = sets_of(DATA, 3)
    HomoencoderObjective(Model(), name).bound(batch, 0.3)
    assert seen["beta"] == 0.3
    HomoencoderObjective(Model(), name).bound(batch)
    assert seen["beta"] == 1
    resample, rescale = {"vhe": (1, 1), "resample": (1, 0), "rescale": (0, 1), "statistician": (0, 0)}[name]
    assert seen["x"].tolist() == (batch.target if resample else batch.inputs["c"][:, 0]).tolist()
    assert (seen["inputs"]["z"][:, 0] == seen["x"]).all()
    assert seen["sizes"]["c"].tolist() == (batch.sizes["c"].tolist() if rescale else [3.0] * N)
    assert seen["sizes"]["z"].tolist() == [1.0] * N


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": {"c": LABELS[:-1]}}, r"labels of c has the shape \(11,\): give 12, one for each example"),
        ({"k_shot": {"c": 4}}, "the group a of c has 3 examples: k_shot 4 needs 4"),
        (
            {"k_shot": {"c": 3}, "exclude_target": True},
            "the group a of c has 3 examples: k_shot 3, besides the target, needs 4",
        ),
        ({"k_shot": {"c": 2.5}}, "k_shot of c must be a positive whole number, not 2.5"),
        ({"labels": LABELS}, "labels must be {latent: ...}, one for each, not a "),
        ({"k_shot": {"z": 1}}, "labels are given for c and k_shot for z: both need the same"),
        ({"transforms": [Transform(add, [1], ["d"])]}, "share_labels of a transform names d: the labels are c"),
        ({"transforms": [Transform(add, [])]}, "a transform has no args"),
        ({"data": [], "labels": {"c": []}}, "data is empty: give at least one example"),
    ],
)
def test_data_that_do_not_fit_are_named(options, message):
    given = {"data": DATA, "labels": {"c": LABELS}, "k_shot": {"c": 2}, "batch_size": 4} | options
    with pytest.raises(InputError, match=message):
        DataLoader(**given)
