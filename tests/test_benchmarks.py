"""Figures that the scripts in benchmarks/ work out themselves, on cases with a known answer."""

from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny

from codesign_kernel import measure, routed
from codesign_kernel.accelerator import load_device
from codesign_kernel.constraints import Constraints
from codesign_kernel.predict import Predictors
from codesign_kernel.space import Architecture, SearchSpace, Stage, load_space
from codesign_kernel.study import open_study
from codesign_kernel.truth import Truth, load

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
DATA = BENCHMARKS.parent / "data"


@pytest.fixture(autouse=True)
def _scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)


# ranking.py


def ranked(tests: dict[str, list[float]]) -> pd.DataFrame:
    """A table of subnets with their test accuracies, one a seed, and nothing but their order."""
    rows = [
        {"architecture": name, "seed": seed, "alone_test": value, "macs": 2**place,
         "supernet_validation": -place, "supernet_test": place, "supernet_predicted": place,
         "specialised_validation": place, "specialised_test": place, "specialised_predicted": place}
        for place, (name, values) in enumerate(tests.items())
        for seed, value in enumerate(values)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_rankings_are_compared_with_the_mean_and_each_seed() -> None:
    found = import_module("ranking").report(ranked({"a": [1, 1], "b": [2, 3], "c": [3, 2]}))
    assert "test accuracy of 3 subnets" in found
    # b and c tie in the mean: 2 / sqrt(2 * 3). Of three subnets drawn, two or three differ.
    assert "| MACs | 0.82 | 0.82 to 1.00 | 1.00, 0.33 | 1.00 |" in found
    assert "validation images | -0.82 | -1.00 to -0.82 | -1.00, -0.33 | -1.00 |" in found
    assert "another seed trained alone (mean 0.33) | | | 0.33 | |" in found


def test_what_size_explains_is_left_out_of_a_ranking() -> None:
    table = ranked({name: [value] for name, value in zip("abcd", (1, 4, 5, 8), strict=True)})
    # Of 1, 4, 5, 8 the line leaves -0.2, 0.6, -0.6, 0.2; the other is half of that off its own.
    table["supernet_test"] = 7 - 3.0 * np.arange(4) + [-0.1, 0.3, -0.3, 0.1]
    found = import_module("ranking").report(table)
    assert "supernet's weights, test images | -1.00 |" in found
    assert "Without what log MACs explain, they do so by one of 0.52." in found
    assert "without size they differ by 0.26,\n  which agrees with tau 1.00" in found


def test_the_report_of_a_table_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "ranking.csv"
    path.write_bytes((BENCHMARKS.parent / "data" / "ranking.csv").read_bytes())
    before = path.stat()
    monkeypatch.setattr("sys.argv", ["ranking", "nowhere", str(path), "--only", "report"])
    import_module("ranking").main()
    assert "| MACs | 0.63 | 0.42 to 0.80 |" in capsys.readouterr().out
    assert path.stat() == before


def test_only_subnets_that_all_seeds_have_trained_are_ranked() -> None:
    table = ranked({"a": [1, 1], "b": [2, np.nan], "c": [3, 3]})
    ranking = import_module("ranking")
    assert "test accuracy of 2 subnets" in ranking.report(table)
    assert ranking.report(table[table["architecture"] != "c"]).startswith("Too few")


# images.py


def test_intervals_are_held_to_networks_that_were_not_learnt_from() -> None:
    digits = open_study(BENCHMARKS.parent / "data" / "studies" / "digits")
    known = measure.rows(digits, "accuracy")["architecture"]
    every = {str(digits.space.decode(genome)) for genome in digits.space.enumerate()[::500]}
    new = sorted(every - set(known))
    table = pd.DataFrame({"architecture": [*new, known[0]], "validation": 96.0})
    found = import_module("images").held(digits, table.assign(test=table["validation"] + 50))
    assert found["validation"][2] == found["test"][2] == len(new) > 10
    assert found["test"][0] == 0
    assert found["test"][1] == pytest.approx(found["validation"][1] + 50)


# accuracy.py


def test_stages_are_described_by_what_their_blocks_hold() -> None:
    space = load_space("digits")
    genomes = space.encode(Architecture.parse("w8k31-w16k5"))[None]
    mean, more = import_module("accuracy").per_stage(space, genomes)
    side = space.input[0] // space.stem_stride
    stem, first = space.stem_width, side // space.stages[0].stride
    macs = [(9 * stem * 8 + 8 * 8) * first**2, 25 * 8 * 16 * (first // space.stages[1].stride) ** 2]
    assert mean.tolist() == [[8, 2, 2, 16, 1, 5]]
    np.testing.assert_allclose(more, [[8, 2, 10, np.log2(macs[0]), 16, 1, 25, np.log2(macs[1])]])


def test_models_see_labels_and_are_held_to_the_truth() -> None:
    accuracy = import_module("accuracy")
    X = np.random.default_rng(0).normal(size=(60, 2))
    truth = 90 + X[:, 0]
    for sizes in (None, X[:, :1]):
        how = accuracy.Encoding(X, sizes)
        same = accuracy.trial(how, truth, truth, 30, 0).loc["Gaussian process"]
        off = accuracy.trial(how, truth + 2, truth, 30, 0).loc["Gaussian process"]
        assert same["MAE"] < 0.1
        assert off["MAE"] == pytest.approx(2, abs=0.1)
        assert off["Kendall tau"] == pytest.approx(same["Kendall tau"], abs=1e-3)


# oneloop.py and codesign.py


@pytest.fixture(scope="module")
def predictors() -> Predictors:
    return tiny.predictors(names=("ecp5-85f",))


def test_nothing_is_trained_routed_or_simulated_twice(predictors: Predictors) -> None:
    oneloop = import_module("oneloop")
    lab = oneloop.Lab(predictors, "ecp5-85f")
    genomes, engines = lab.random(5, np.random.default_rng(0))
    assert len(genomes) == 5
    engines[1:3] = engines[0]
    for _ in range(2):
        found = lab.figures(genomes, engines, Constraints())
    assert np.isfinite(found).all()
    assert (len(lab.trained), len(lab.routed), len(lab.simulated)) == (
        len(np.unique(genomes, axis=0)), len(np.unique(engines)), 5,
    )  # fmt: skip


def test_networks_whose_designs_break_a_bound_are_not_trained(predictors: Predictors) -> None:
    oneloop = import_module("oneloop")
    lab = oneloop.Lab(predictors, "ecp5-85f")
    genomes, engines = lab.random(20, np.random.default_rng(1))
    latency = lab.hardware(genomes, engines)[:, 0]
    found = lab.figures(genomes, engines, Constraints(max_latency_ms=float(np.median(latency))))
    kept = np.isfinite(found[:, 0])
    assert kept.tolist() == (latency <= np.median(latency)).tolist()
    assert len(lab.trained) == len(np.unique(genomes[kept], axis=0))
    over = oneloop.excess(np.array([[2.0, 0.5], [0.9, 0.5], [np.nan, np.nan]]),
                          Constraints(max_latency_ms=1, max_power_w=0.4))  # fmt: skip
    assert over.tolist() == pytest.approx([1.25, 0.25, np.inf])


@pytest.mark.parametrize("way", range(4))
def test_ways_stay_within_the_budget_and_find_designs(predictors: Predictors, way: int) -> None:
    oneloop = import_module("oneloop")
    lab = oneloop.Lab(predictors, "ecp5-85f")
    genomes, engines = lab.random(200, np.random.default_rng(2))
    latency, power = np.quantile(lab.hardware(genomes, engines), 0.6, axis=0)
    bounds = Constraints(max_latency_ms=float(latency), max_power_w=float(power))
    lab = oneloop.Lab(predictors, "ecp5-85f")
    found = list(oneloop.WAYS.values())[way](lab, bounds, np.random.default_rng(3))
    assert 1 <= len(lab.trained) <= len(lab.simulated) <= oneloop.BUDGET
    inside = np.isfinite(found[:, 0]) & (oneloop.excess(found[:, 1:], bounds) == 0)
    assert inside.any()
    again = oneloop.Lab(predictors, "ecp5-85f")
    list(oneloop.WAYS.values())[way](again, bounds, np.random.default_rng(3))
    assert (again.trained, again.simulated) == (lab.trained, lab.simulated)


def test_each_count_of_constraint_sets_is_a_grid_that_holds_the_one_before() -> None:
    codesign = import_module("codesign")
    assert len(codesign.SETS) == max(codesign.COUNTS) == 16
    for n in codesign.COUNTS:
        part = codesign.SETS[:n]
        latencies = {each.max_latency_ms for each in part}
        assert len(latencies) * len({each.max_power_w for each in part}) == n


def test_hours_are_means_times_counts() -> None:
    codesign = import_module("codesign")
    steps = pd.DataFrame({"mean_s": {
        "train the supernet": 1000.0, "the teacher's answers": 10, "accuracy of a subnet": 1,
        "place and route, profiled engines": 400, "place and route an engine": 500,
        "specialise a subnet": 12, "train a network alone": 140, "fit": 20,
        "simulate a design": 0.5, "compile an engine": 30,
    }})  # fmt: skip
    counts = {"specialised": [4, 0], "trainings": [1, 50], "routed": [10, 30]}
    counts |= {"simulated": [204, 100], "search_s": [24.0, 3.0]}
    table = pd.DataFrame({"way": [codesign.OURS, "controller"], **counts})
    found = 3600 * codesign.hours(table, steps, 8, 200)
    assert found["train_h"].tolist() == pytest.approx([1000 + 10 + 200 + 48, 50 * 140], abs=2)
    assert found["route_h"].tolist() == pytest.approx([8 * 400 + 2 * 500, 30 * 500], abs=2)
    assert found["simulate_h"].tolist() == pytest.approx([102 + 300, 50 + 900], abs=2)
    assert found["search_h"].tolist() == pytest.approx([44, 3], abs=2)
    assert found["measured_h"].tolist() == pytest.approx([1210 + 3200 + 44, 3], abs=2)
    assert found["cpu_h"].tolist() == pytest.approx(
        [1258 + 4200 + 402 + 44, 7000 + 15000 + 950 + 3], abs=3
    )


# ways.py, others.py and method.py


def few() -> Truth:
    """Two engines, of which the second cannot run the largest of four architectures."""
    space = SearchSpace("few", "digits", (8, 8, 1), 10, 8, 3, 1, (Stage((8, 16), (1,), (3, 5), 1),))
    device = load_device("ecp5-45f")
    engines = tuple(routed.engines(device)[:2])
    latency = np.array([[4.0, 5, 6, 7], [1, 2, 3, np.nan]])
    validation = np.array([90.0, 91, 92, 93])
    return Truth(space, device, space.enumerate(), engines, validation, validation - 1, latency,
                 np.where(np.isnan(latency), np.nan, 0.5))  # fmt: skip


def test_designs_of_the_truth_are_those_of_the_store() -> None:
    ways, truth = import_module("ways"), few()
    pairs = np.array([[1, 2], [0, 3]])
    keys = [ways.key_of(truth, pair) for pair in pairs]
    assert keys[0] == (
        str(truth.space.decode(truth.genomes[2])), str(truth.engines[1]), "ecp5-45f",
    )  # fmt: skip
    np.testing.assert_array_equal(ways.pairs_of(truth, keys), pairs)
    assert ways.known_of(truth, pairs).figures().tolist() == [[92, 3, 0.5], [93, 7, 0.5]]


def test_rows_of_another_truth_are_told_apart() -> None:
    method, truth = import_module("method"), few()
    other = replace(truth, power_w=truth.power_w * 1.01)
    assert method.stamp(truth) == method.stamp(few()) != method.stamp(other)


def test_designs_are_chosen_by_validation_and_judged_by_test_images() -> None:
    method = import_module("method")
    truth = few()
    truth = replace(truth, power_w=truth.power_w * [[1.0], [2.0]])  # so that it has a range
    swapped = replace(truth, test=np.array([91.0, 93, 90, 92]))
    unseen = method.Unseen(swapped)
    np.testing.assert_array_equal(unseen.everything, np.argwhere(np.isfinite(swapped.latency_ms)))
    assert unseen.share(unseen.everything) < 100  # the best by validation are not the best by test
    same = method.Unseen(replace(truth, test=truth.validation))
    assert same.share(same.everything) == pytest.approx(100)


@pytest.fixture(scope="module")
def digits() -> Truth:
    return load(DATA / "truth" / "digits", load_space("digits"))


@pytest.mark.parametrize("name", ["random_search", "two_step", "controller"])
def test_other_ways_measure_as_many_networks_as_they_may(digits: Truth, name: str) -> None:
    way = getattr(import_module("others"), name)
    for budget in (24, 60):
        found = way(digits, np.random.default_rng(0), budget)
        assert len(np.unique(found.measured)) == len(found.measured) == budget
        assert len(found.proposed) == 0


def test_candidates_can_run_and_are_of_new_networks(digits: Truth) -> None:
    others, ways = import_module("others"), import_module("ways")
    known = ways.random_pairs(digits, 20, np.random.default_rng(0))
    pool = others.candidates(digits, known, np.random.default_rng(1))
    assert np.isfinite(digits.latency_ms[tuple(pool.T)]).all()
    assert len(np.unique(pool[:, 1])) == len(pool) > others.POOL
    assert not np.isin(pool[:, 1], known[:, 1]).any()


def test_accuracies_alone_ask_for_no_image(digits: Truth, monkeypatch: pytest.MonkeyPatch) -> None:
    ways, some = import_module("ways"), np.arange(0, len(digits.genomes), 600)
    monkeypatch.delattr(ways, "codes_of")
    model = ways.accuracy_model(digits, some, images=False)
    assert type(model).__name__ == "Surrogate"


def test_designs_of_all_engines_count_for_every_network_that_was_measured() -> None:
    method, truth = import_module("method"), few()
    truth = replace(truth, power_w=truth.power_w * [[1.0], [2.0]])
    found = method.scores(
        truth,
        method.everywhere(truth, np.array([0, 3])),
        method.Scale(truth.front()),
        method.Unseen(truth),
    )
    assert (found["networks"], found["front"]) == (2, 3)  # the second engine cannot run network 3
    assert 0 < found["share"] < 100


def test_tables_tell_what_was_measured_from_what_was_proposed() -> None:
    method = import_module("method")
    rows = [(method.OURS[-1], method.SEARCH, 0, 100, 90.0, 60.0),
            (method.OURS[-1], method.FRONT, 0, 280, 99.0, 90.0),
            ("controller", method.SEARCH, 0, 100, 95, 81),
            ("controller", method.SEARCH, 1, 100, 85, 72)]  # fmt: skip
    columns = ["way", "scored", "seed", "networks", "share", "test"]
    table = pd.DataFrame(rows, columns=columns).assign(engines=41, front=7)
    table = table.assign(distance_median=0, distance_worst=0)
    within, after, parts, alone = (method.grouped(table, group) for group in method.GROUPS)
    assert within["way"].tolist() == [method.OURS[-1], "controller", "controller"]
    assert "| controller | 2 | 100 | 41 | 90.0 % | 85.0 % | 85.0 % | 80.0 % | 76.5 % |" in (
        method.report(within, 90.0)
    )
    assert after["networks"].tolist() == [280]
    assert alone.empty
    assert f"{method.OURS[-1]}; {method.FRONT} | 1 | 280 | 41 |" in method.report(parts, 90.0)


# improve.py


def test_random_designs_can_run_and_none_is_measured_twice() -> None:
    improve, truth = import_module("improve"), few()
    start = improve.drawn(truth, 4, np.array([1]), np.random.default_rng(0))
    assert {*map(tuple, start)} == {(1, 0), (1, 1), (1, 2)}
    (pairs,) = improve.random(truth, start, np.random.default_rng(0))
    assert len({*map(tuple, pairs)}) == len(pairs)
    assert np.isfinite(truth.latency_ms[tuple(pairs.T)]).all()


def test_ways_are_compared_seed_by_seed() -> None:
    columns = ["way", "seed", "engines", "measured", "share", "test_share", "used"]
    rows = [("start", 0, 2, 40, 50, 49, 1), ("start", 1, 2, 40, 60, 59, 1),
            ("random", 0, 2, 80, 70, 69, 2), ("random", 1, 2, 80, 80, 79, 2),
            ("improve, 4 rounds", 0, 2, 60, 10, 10, 2), ("improve, 4 rounds", 0, 2, 80, 90, 89, 2),
            ("improve, 4 rounds", 1, 2, 80, 79, 78, 2)]  # fmt: skip
    found = import_module("improve").report(pd.DataFrame(rows, columns=columns))
    assert "| start | 55.0 % | 50.0 | 60.0 | 45.0 | | | 54.0 % | |" in found
    assert "| random | 75.0 % | 70.0 | 80.0 | 25.0 | | | 74.0 % | 2.0 |" in found
    improved = (
        "| improve, 4 rounds | 84.5 % | 79.0 | 90.0 | 15.5 | +9.5 ± 14.8 | 1 of 2 | 83.5 % | "
    )
    assert improved in found


# unseen.py


def test_networks_of_random_layers_are_simulated_and_found_in_the_table() -> None:
    unseen = import_module("unseen")
    text, bits = unseen.RANDOM[0]
    about = {"kind": "random", "accelerator": text, "port_bits": bits, "network": 0}
    about |= {"memory": "default"}
    found = pd.DataFrame(unseen.rows_of(unseen.chance(np.random.default_rng(8)), about))
    table = pd.read_csv(BENCHMARKS.parent / "data" / "unseen_cycles.csv")
    same = (table[list(about)] == pd.Series(about)).all(axis=1)
    pd.testing.assert_frame_equal(found, table[same].reset_index(drop=True), check_exact=False)
