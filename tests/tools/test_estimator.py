"""The estimator of people with arrays: fit, transform, predict, impute, sample, and what it refuses."""

import pickle
import re
import sys
import warnings

from common.checkpoints import load_model
from common.encoders_decoders import SplitLinearLayer, WithColumns, WithMissing
from common.errors import InputError
from common.estimators import log_marginal
from tools import estimator
from tools.estimator import Continuous, Counts, Image, Labels, MultimodalEstimator

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_checks
from torch import nn

KINDS = {"a": Continuous(5), "b": Continuous(3), "y": Labels(("neg", "pos")), "n": Counts(4)}
# Those that call fit, transform or predict with one array (n, d), the other checks do: X has several, by name. predict
# needs a target.
CHECKS = (
    "check_no_attributes_set_in_init",
    "check_estimator_cloneable",
    "check_estimator_repr",
    "check_get_params_invariance",
    "check_set_params",
    "check_valid_tag_types",
    "check_do_not_raise_errors_in_init_or_set_params",
    "check_parameters_default_constructible",
    "check_mixin_order",
    "check_transformers_unfitted",
    "check_get_feature_names_out_error",
    "check_estimator_tags_renamed",
)


def data(n=400, seed=0):
    """Two tables, a class and counts of two factors: DataFrames, some cells and the first 50 rows of b missing."""
    random = np.random.default_rng(seed)
    u, loadings = random.normal(size=(n, 2)), np.random.default_rng(9)
    a, b = (u @ loadings.normal(size=(2, d)) + 0.3 * random.normal(size=(n, d)) for d in (5, 3))
    a = 100 + 10 * a
    a[random.random(a.shape) < 0.2] = np.nan
    y = np.where(u[:, 0] > 0, "pos", "neg").astype(object)
    counts = random.poisson(np.exp(1 + 0.5 * u @ loadings.normal(size=(2, 4))))
    index = [f"row {i}" for i in range(n)]
    return {
        "a": pd.DataFrame(a, index, list("vwxyz")),
        "b": pd.DataFrame(b, index, list("pqr")).iloc[50:],
        "y": pd.Series(y, index),
        "n": pd.DataFrame(counts, index, list("stuv")),
    }


def arrays(x, n=None):
    """The same as arrays, the rows that b lacks NaN."""
    x = x | {"b": x["b"].reindex(x["a"].index)}
    return {name: table.to_numpy()[:n] for name, table in x.items()}


def fitted(x, kinds=KINDS, **options):
    """An estimator after an epoch, unless told otherwise, whose modalities may have collapsed."""
    options = {"epochs": 1, "n_latents": 4, "model": "mvtcae", "verbose": False} | options
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return MultimodalEstimator(kinds, **options).fit(x)


@pytest.fixture(scope="module")
def x():
    return data()


@pytest.fixture(scope="module")
def trained(x):
    estimator = MultimodalEstimator(KINDS, n_latents=4, epochs=40, verbose=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return estimator.fit(x)


@pytest.fixture(scope="module")
def quick(x):
    return fitted(arrays(x, 120))


@pytest.mark.parametrize("check", CHECKS)
def test_scikit_learns_checks(check):
    getattr(estimator_checks, check)("MultimodalEstimator", MultimodalEstimator(KINDS, epochs=1, verbose=False))


def test_each_modality_is_predicted_from_the_others(trained):
    new = data(300, seed=1)
    full, z = data(300, seed=1), trained.transform(new)
    assert z.shape == (300, 4) and not np.allclose(z, trained.transform(new, given=("a",)))
    y = trained.predict({name: table for name, table in new.items() if name != "y"}, "y")
    assert y.index.equals(new["a"].index) and (y == full["y"]).mean() > 0.85
    found = trained.predict(new, ("b", "n"), given=("a", "y"))
    assert list(found["b"].columns) == list("pqr") and list(found["n"].columns) == list("stuv")
    for name in ("b", "n"):
        truth = full[name]
        error, spread = ((truth - x).pow(2).sum().sum() for x in (found[name].loc[truth.index], truth.mean()))
        assert error < (0.3 if name == "b" else 0.8) * spread, name


def test_missing_cells_and_rows_are_filled_and_nothing_else_changes(trained, x):
    before = {name: table.copy() for name, table in x.items()}
    whole = trained.impute(x | {"y": x["y"].mask(np.arange(400) < 10)})
    for name, table in before.items():
        pd.testing.assert_frame_equal(x[name], table) if table.ndim == 2 else pd.testing.assert_series_equal(
            x[name], table
        )
        there = table.reindex(whole[name].index)
        kept = whole[name].where(there.notna()) if name != "y" else whole[name].iloc[10:]
        assert kept.equals(there if name != "y" else there.iloc[10:]), name
        assert whole[name].notna().all(axis=None)
    random = np.random.default_rng(0)
    lost = x["a"].mask(random.random((400, 5)) < 0.2)
    removed = lost.isna() & x["a"].notna()
    error, spread = (
        (filled - x["a"])[removed].pow(2).sum().sum()
        for filled in (trained.impute(x | {"a": lost})["a"], x["a"].mean())
    )
    assert error < 0.4 * spread
    assert (whole["y"].iloc[:10] == x["y"].iloc[:10]).mean() > 0.6


def test_arrays_tensors_and_tables_are_the_same(quick, x):
    few = arrays(x, 120)
    z = quick.transform(few)
    tensors = few | {name: torch.from_numpy(few[name]) for name in "abn"}
    frames = {"a": x["a"].iloc[:120], "b": x["b"].iloc[:70], "y": x["y"].iloc[:120], "n": x["n"].iloc[:120]}
    for same in (tensors, frames, {name: few[name] for name in "nyba"}):
        assert np.array_equal(quick.transform(same), z)
    assert isinstance(quick.predict(few, "b"), np.ndarray)
    without = few | {"b": np.full_like(few["b"], np.nan)}
    assert np.array_equal(quick.transform(without), quick.transform({name: few[name] for name in "any"}))


def test_a_mask_is_like_missing_values(x):
    few = arrays(x, 120)
    lacking = np.arange(120) % 3 == 0
    kept = {name: few[name] for name in "by"}
    values = kept | {"b": np.where(lacking[:, None], np.nan, few["b"])}
    kinds = {name: KINDS[name] for name in "by"}
    masked, plain = MultimodalEstimator(kinds, epochs=1, verbose=False), fitted(values, kinds, n_latents=16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        masked.fit(kept, mask={"b": ~lacking})
    assert masked.history_[0]["train"] == plain.history_[0]["train"]


@pytest.mark.filterwarnings("ignore:log p of")
def test_units_do_not_matter(x):
    few = arrays(x, 120)
    scaled = few | {"a": 3 * few["a"] - 50}
    ours, theirs = fitted(few), fitted(scaled)
    np.testing.assert_allclose(ours.predict(few, "a") * 3 - 50, theirs.predict(scaled, "a"), rtol=1e-4)
    (p, error), (q, _) = ours.score_samples(few, 50), theirs.score_samples(scaled, 50)
    cells = (~np.isnan(few["a"])).sum(axis=1)
    np.testing.assert_allclose(q, p - cells * np.log(3), rtol=1e-4, atol=1e-3)
    assert error.shape == (120,) and (error > 0).all()


def test_scores_are_log_p_of_what_a_row_has(quick, x):
    few = arrays(x, 120)
    p, error = quick.score_samples({"b": few["b"]}, 2000)
    assert (p[:50] == 0).all() and (error[:50] < 1e-6).all(), "b is absent"
    mean, deviation = torch.tensor(quick.scales_["b"]).T
    b = (torch.from_numpy(few["b"][50:]).float() - mean) / deviation
    expected = log_marginal(quick.model_, {"b": b}, ("b",), given=(), n_samples=20_000) - deviation.log().sum()
    np.testing.assert_allclose(p[50:], expected, atol=0.15)


def test_counts_above_float32s_whole_numbers_are_kept(x):
    counts = np.array([[2.0**24 + 1, np.nan], [2.0**40 + 1, 3]])
    assert Counts(2).tensor("n", counts).tolist() == [[2**24 + 1, -1], [2**40 + 1, 3]]
    few = np.full((40, 2), 10**7) + np.arange(80).reshape(40, 2)
    vae = fitted({"n": few, "m": few * 1.0}, {"n": Counts(2), "m": Counts(2)})
    lacking = {"n": few * 1.0, "m": np.where(np.arange(40)[:, None] % 2, few, np.nan)}
    whole = vae.impute(lacking)
    assert np.array_equal(whole["n"], few) and not np.isnan(whole["m"]).any()
    with pytest.raises(InputError, match="n has values that are no counts"):
        Counts(2).tensor("n", np.array([[2.0**60, 0]]))


def test_a_loaded_estimator_has_the_options_of_its_fit(x, tmp_path):
    options = {"objective": "mvae", "model": "mvae", "weights": {"a": 2.0}, "beta": 0.5, "random_state": 3}
    vae = fitted(arrays(x, 80), **options)
    vae.save(tmp_path / "saved")
    given, loaded = vae.get_params(), MultimodalEstimator.load(tmp_path / "saved").get_params()
    assert {name: loaded[name] for name in options} == {name: given[name] for name in options} == options


def test_a_train_py_in_a_package_of_ones_own_may_fit(x, tmp_path, monkeypatch):
    (tmp_path / "__init__.py").touch()
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(tmp_path / "train.py"), raising=False)
    fitted(arrays(x, 80))


def test_a_prediction_sees_the_given_modalities_alone(quick, x):
    few = arrays(x, 120)
    other = few | {"n": few["n"][::-1]}
    given_a, given_both = (quick.predict(few, "b", given=given) for given in (("a",), ("a", "n")))
    assert np.array_equal(given_a, quick.predict(other, "b", given=("a",))) and not np.array_equal(given_a, given_both)
    assert not np.array_equal(given_both, quick.predict(other, "b", given=("a", "n")))


def test_the_random_state_draws_the_order_of_rows(x, monkeypatch):
    orders, hold_out = [], estimator.hold_out
    monkeypatch.setattr(estimator, "hold_out", lambda rows, n: orders.append(rows.modalities["n"]) or hold_out(rows, n))
    for seed in (0, 0, 1):
        fitted(arrays(x, 120), random_state=seed)
    first, again, other = orders
    assert first.equal(again) and not first.equal(other) and first.sort(dim=0)[0].equal(other.sort(dim=0)[0])


def test_scores_of_few_effective_samples_are_warned_of(quick, x):
    few = {"b": arrays(x, 120)["b"]}
    with pytest.warns(UserWarning, match=r"of 120 rows rests on .* the fewest 1\.0 of 1: raise n_samples"):
        _, error = quick.score_samples(few, 1)
    assert np.isnan(error).all()


def test_draws_have_the_units_and_words_of_the_data(trained, x):
    drawn = trained.sample(500)
    assert list(drawn["a"].columns) == list("vwxyz") and set(drawn["y"]) == {"neg", "pos"}
    assert 95 < drawn["a"].mean().mean() < 105 and 5 < drawn["a"].std().mean() < 20
    assert (drawn["n"] == drawn["n"].round()).all(axis=None) and (drawn["n"] >= 0).all(axis=None)
    pd.testing.assert_frame_equal(trained.sample(500)["a"], drawn["a"])
    given = trained.sample(7, given={"b": x["b"], "y": x["y"].iloc[50:]})
    assert {name: values.shape[:2] for name, values in given.items()} == dict.fromkeys(KINDS, (7, 350))
    assert (given["y"] == x["y"].iloc[50:].to_numpy()).mean() > 0.85


def test_a_saved_estimator_is_the_same_and_a_run(trained, x, tmp_path):
    trained.save(tmp_path / "saved")
    loaded = MultimodalEstimator.load(tmp_path / "saved")
    assert loaded.get_params()["n_latents"] == 4 and loaded.modalities == KINDS
    for same in (loaded, pickle.loads(pickle.dumps(trained))):
        pd.testing.assert_frame_equal(same.predict(x, "b"), trained.predict(x, "b"))
    assert load_model(tmp_path / "saved").modalities == tuple(KINDS)
    with pytest.raises(InputError, match="exists: give another folder"):
        trained.save(tmp_path / "saved")


def test_mudata_goes_in_and_out(trained, x):
    import mudata
    from anndata import AnnData

    mudata.set_options(pull_on_update=False)
    parts = {name: AnnData(x[name].astype(np.float32)) for name in "ab"}
    whole = mudata.MuData(parts)
    whole.obs["y"] = x["y"].loc[whole.obs_names]
    whole.obsm["n"] = x["n"].loc[whole.obs_names].to_numpy(float)  # mudata cannot copy integers where rows are missing
    z = trained.transform(whole)
    tables = x | {"a": x["a"].loc[whole.obs_names]}
    np.testing.assert_allclose(z, trained.transform(tables), atol=1e-5)
    filled = trained.impute(whole)
    assert np.isnan(whole.mod["a"].X).any() and not np.isnan(filled.mod["a"].X).any()
    np.testing.assert_allclose(filled.mod["a"].X, trained.impute(tables)["a"], rtol=1e-5)
    assert filled.mod["b"].n_obs == 350 and filled.obs["y"].equals(whole.obs["y"])
    filled.obsm["z"] = trained.transform(filled)
    assert filled.obsm["z"].shape == (400, 4)


def test_what_is_not_used_is_named():
    x = arrays(data(200), 200)
    x = {"a": x["a"], "noise": np.random.default_rng(0).normal(size=(200, 4))}
    with pytest.warns(UserWarning, match="^noise collapsed, "):
        MultimodalEstimator(
            {"a": Continuous(5), "noise": Continuous(4)}, n_latents=2, epochs=30, validation_fraction=0.3, verbose=False
        ).fit(x)


def test_options_have_their_effect(x, tmp_path):
    few = arrays(x, 120)
    histories = []
    for options in (
        {},
        {"model": "mmvae"},
        {"objective": "iwae"},
        {"beta": 0.1},
        {"weights": {"y": 5.0}},
        {"batch_size": 16},
        {"lr": 1e-4},
        {"validation_fraction": 0.3},
        {"random_state": 1},
        {"n_latents": 8},
    ):
        histories.append(fitted(few, **options).history_[0]["train"]["bound"])
    assert len(set(histories)) == len(histories)
    stopped = fitted(few, epochs=30, patience=1, lr=0.05)
    assert len(stopped.history_) < 30
    assert len(fitted(few, epochs=3, patience=1, validation_fraction=0).history_) == 3
    kept = fitted(few, save_dir=tmp_path / "run")
    assert np.array_equal(MultimodalEstimator.load(tmp_path / "run").transform(few), kept.transform(few))
    with pytest.raises(InputError, match="run holds a run: give another folder"):
        fitted(few, save_dir=tmp_path / "run")


def test_networks_of_ones_own(x, tmp_path):
    def encoder(d):
        return WithMissing(nn.Sequential(nn.Linear(10, 7), SplitLinearLayer(7, (d, d))))

    networks = {"a": (encoder, lambda d: WithColumns(nn.Linear(d, 5), torch.zeros(5)))}
    few = arrays(x, 120)
    estimator = fitted(few, networks=networks)
    assert estimator.model_.encoder["a"].network[0].out_features == 7
    estimator.save(tmp_path)
    loaded = MultimodalEstimator.load(tmp_path, networks=networks)
    assert np.array_equal(loaded.transform(few), estimator.transform(few))
    with pytest.raises(InputError, match="does not fit the networks of estimator"):
        MultimodalEstimator.load(tmp_path)


@pytest.mark.parametrize("shape", [(1, 7, 9), (3, 16, 16), (1, 3, 30)])
def test_images_of_any_size(shape):
    random = np.random.default_rng(0)
    x = {"image": random.integers(0, 256, (40, *shape), dtype=np.uint8), "y": random.integers(0, 3, 40)}
    estimator = fitted(x, {"image": Image(*shape), "y": Labels(3)})
    image = estimator.predict(x, "image")
    assert image.shape == (40, *shape) and image.min() >= 0 and image.max() <= 1
    floats = x | {"image": (x["image"] / 255).astype(np.float32)}
    np.testing.assert_allclose(estimator.transform(x), estimator.transform(floats), atol=1e-5)
    lacking = x | {"image": np.where(np.arange(40).reshape(-1, 1, 1, 1) < 3, np.nan, floats["image"])}
    whole = estimator.impute(lacking)["image"]
    assert not np.isnan(whole).any() and np.array_equal(whole[3:], lacking["image"][3:])


A = {"a": np.zeros((4, 5))}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((4, 5)), "X must map names to arrays, or be a MuData object, not ndarray"),
        ({}, "X is empty: give at least one of a, b, y, n"),
        (A | {"c": 0}, "X has c, which modalities lack: they have a, b, y, n"),
        ({"a": np.zeros((4, 6))}, "a has the shape (4, 6), and its modality (N, 5): give both the same"),
        ({"a": np.full((4, 5), "x")}, "a has values that are no numbers (could not convert"),
        ({"a": np.full((4, 5), np.inf)}, "a has infinite values: give NaN where one is missing"),
        (A | {"b": np.zeros((3, 3))}, "all modalities need the same number of rows (got {'a': 4, 'b': 3})"),
        ({"y": ["pos", "other", None]}, "y has the classes other, which are none of neg, pos"),
        ({"n": np.full((4, 4), 0.5)}, "n has values that are no counts: give 0, 1, 2, ..., or Continuous(4)"),
        (A | {"b": pd.DataFrame(np.zeros((4, 3)))}, "b has another index"),
    ],
)
def test_what_cannot_be_read_is_refused_in_a_line(quick, values, message):
    if message == "b has another index":
        values |= {"a": pd.DataFrame(values["a"])}
        values["a"].index = [0, 0, 1, 2]
        message = "another index than the other tables: make it unique, and give all as tables"
    with pytest.raises(InputError, match=re.escape(message)):
        quick.transform(values)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "jmvae"}, "model must be one of mvae, mmvae, "),
        ({"device": "tpu"}, "device must be cpu or cuda, not 'tpu'"),
        ({"device": "mps"}, "device must be cpu or cuda, not 'mps' (mps lacks float64): choose one"),
        ({"validation_fraction": 1.0}, "validation_fraction must lie in [0, 1), it is 1.0"),
        ({"epochs": 0}, "--epochs must be positive, not 0"),
        ({"n_latents": 0}, "--n-latents must be positive, not 0"),
        ({"objective": "nothing"}, "the config has --obj nothing"),
        ({"weights": {"z": 1.0}}, "weights of unknown modalities: z; the model has a, b, y, n"),
    ],
)
def test_options_that_do_not_exist_are_refused(options, message, x):
    with pytest.raises(InputError, match=re.escape(message)):
        fitted(arrays(x, 60), **options)


def test_a_gpu_that_is_not_here_is_refused_before_anything_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="there is no GPU here for device='cuda': give device='cpu'"):
        MultimodalEstimator.load(tmp_path / "nowhere", device="cuda")


@pytest.mark.parametrize(
    "use",
    [
        lambda vae, x: vae.transform(x, given="lab"),
        lambda vae, x: vae.predict(x, "y", given="lab"),
        lambda vae, x: vae.sample(2, names="lab"),
    ],
)
def test_names_in_one_string_are_refused(quick, x, use):
    with pytest.raises(InputError, match=r"name modalities in tuples: \('lab',\), not 'lab'"):
        use(quick, arrays(x, 60))


def test_more_is_refused(quick, x):
    few = arrays(x, 60)
    with pytest.raises(NotFittedError):
        MultimodalEstimator(KINDS).transform(few)
    with pytest.raises(InputError, match="X lacks b, n: give all of the modalities, NaN where rows lack them"):
        fitted({name: few[name] for name in "ay"})
    with pytest.raises(InputError, match="there is no modality c: there are a, b, y, n"):
        quick.predict(few, "c")
    with pytest.raises(InputError, match="X has a alone, and nothing to predict it from"):
        quick.predict({"a": few["a"]}, "a")
    for mask, message in (
        ({"c": np.ones(60, bool)}, "the mask names c, which X lacks"),
        ({"a": np.ones(60)}, r"the mask of a must be bool of shape \(60,\)"),
    ):
        with pytest.raises(InputError, match=message):
            MultimodalEstimator(KINDS, verbose=False).fit(few, mask=mask)


def test_numbered_classes_may_be_missing():
    x = {"y": np.array([0.0, 1.0, np.nan, -1.0]), "a": np.zeros((4, 5))}
    estimator = fitted(
        {"y": np.arange(40) % 2, "a": np.random.default_rng(0).normal(size=(40, 5))},
        {"a": Continuous(5), "y": Labels(2)},
    )
    filled = estimator.impute(x)["y"]
    assert filled[:2].tolist() == [0, 1] and set(filled[2:]) <= {0, 1}
    with pytest.raises(InputError, match="y has values that are no classes 0 to 1: give these, or name them"):
        estimator.transform({"y": [0, 2]})


def test_columns_are_told_by_their_names(trained, x):
    mixed = x | {"a": x["a"][list("zxvwy")]}
    pd.testing.assert_frame_equal(trained.transform(mixed), trained.transform(x))
    whole = trained.impute(mixed)["a"]
    assert list(whole.columns) == list("zxvwy")
    pd.testing.assert_frame_equal(whole[list("vwxyz")], trained.impute(x)["a"])
    with pytest.raises(InputError, match=r"a has other columns than in fit: give v, w, x, y, z, \.\.\."):
        trained.transform({"a": x["a"].rename(columns=str.upper)})


@pytest.mark.filterwarnings("ignore:log p of")
def test_rows_keep_their_names(trained, x):
    part = {"b": x["b"], "a": x["a"].iloc[:60]}
    z, (p, error) = trained.transform(part), trained.score_samples(part, 20)
    assert [*z.columns] == ["z0", "z1", "z2", "z3"] and z.index.equals(p.index) and p.index.equals(error.index)
    assert set(z.index) == set(x["a"].index) and z.index[0] == "row 0"
    pd.testing.assert_frame_equal(z.loc[["row 100"]], trained.transform({"b": x["b"].loc[["row 100"]]}), rtol=1e-4)
    with pytest.raises(InputError, match="no row is in two of the tables: give their ids the same type"):
        trained.transform({"a": x["a"].reset_index(drop=True), "b": x["b"]})


def test_large_means_leave_the_digits(x):
    few = arrays(x, 120)
    far = few | {"a": few["a"] + 2.0**31}
    ours, theirs = fitted(few), fitted(far)
    np.testing.assert_allclose(theirs.transform(far), ours.transform(few), atol=1e-4)
    np.testing.assert_allclose(theirs.predict(far, "a") - 2.0**31, ours.predict(few, "a"), rtol=1e-4)


def test_types_stay_where_nothing_is_missing(x):
    table = pd.DataFrame({"g": [1, 2, 3, 4] * 30, "h": [1.5, None, 2.5, 3.5] * 30})
    label = pd.Series(["u", None, "v", "u"] * 30, dtype="category", name="cell")
    kinds = {"t": Continuous(2), "y": Labels(["u", "v"])}
    whole = fitted({"t": table, "y": label}, kinds).impute({"t": table, "y": label})
    assert whole["t"].dtypes.tolist() == [np.int64, np.float64] and whole["t"]["g"].equals(table["g"])
    assert whole["y"].dtype == label.dtype and whole["y"].name == "cell" and whole["y"].notna().all()
    for same in (label.astype("string"), label.astype(object).where(label.notna(), pd.NA), label.to_frame()):
        assert fitted({"t": table, "y": same}, kinds).impute({"y": same})["y"].notna().all(axis=None)


def test_the_callers_random_state_stays_and_the_seed_decides(x):
    few = arrays(x, 60)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    for seed in (np.int64(3), None, np.random.RandomState(0)):
        fitted(few, random_state=seed)
    assert torch.get_rng_state().equal(state)
    z = [fitted(few, random_state=seed).transform(few) for seed in (3, np.int64(3), 4)]
    assert np.array_equal(z[0], z[1]) and not np.array_equal(z[0], z[2])


def test_a_pipeline_gives_its_labels_which_are_not_used(x):
    kinds = {"b": Continuous(3)}
    vae = MultimodalEstimator(kinds, n_latents=3, epochs=30, verbose=False)
    y = x["y"].iloc[50:] == "pos"
    model = make_pipeline(vae, LogisticRegression()).fit({"b": x["b"]}, y)
    assert model.score({"b": x["b"]}, y) > 0.85


def test_few_rows_are_enough_and_none_are_refused(x):
    few = arrays(x, 9)
    z = fitted({name: few[name] for name in "ay"}, {name: KINDS[name] for name in "ay"}).transform({"a": few["a"][:1]})
    assert z.shape == (1, 4)
    with pytest.raises(InputError, match="X has no rows"):
        fitted({name: few[name][:0] for name in few})


@pytest.mark.parametrize("classes", [(1, 2), (False, True), ("u", "u"), ()])
def test_names_of_classes_are_strings_each_once(classes):
    assert Labels(np.int64(3)) == Labels(3)
    with pytest.raises(InputError, match="the names of classes must be strings, each once"):
        Labels(classes)
