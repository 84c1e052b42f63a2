"""What verbs print that is not tested through the command line."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny

from codesign_kernel import fits, measure, verbs
from codesign_kernel.study import open_study


def test_what_was_not_measured_says_why(tmp_path_factory: pytest.TempPathFactory) -> None:
    opened = tiny.study(tmp_path_factory, tmp_path_factory.mktemp("verbs") / "digits")
    told = verbs.why_modelled(opened, "w8k3-w16k3@8x2x1w16f32@ecp5-25f")
    assert "was not placed and routed yet" in told
    assert f"verify w8k3-w16k3@8x2x1w16f32@ecp5-25f --study {opened.root}`" in told
    mine = replace(opened.device("ecp5-25f"), name="my-ecp5")
    opened = replace(opened, devices={"my-ecp5": mine})
    assert verbs.why_modelled(opened, "w8k3-w16k3@8x2x1w16f32@my-ecp5") == (
        "Its latency and power are modelled: engines are built for ecp5-25f, ecp5-45f, ecp5-85f "
        "only."
    )


def test_the_table_of_fit_has_no_empty_column_and_fits_a_terminal() -> None:
    shipped = open_study(Path(__file__).parents[1] / "data" / "studies" / "digits")
    report = shipped.fit_report()
    text = verbs.fit_text(shipped, report)
    assert "MAPE, new engine" in text.splitlines()[0]
    assert "'new engine': of rows" in text
    narrow = verbs.fit_text(shipped, report.assign(**dict.fromkeys(fits.ANEW, np.nan)))
    assert "new engine" not in narrow
    table = narrow.splitlines()[: 1 + len(report)]
    assert max(map(len, table)) <= 120
    assert "accuracies alone" in table[2]


def test_profile_says_what_it_cannot_simulate_and_what_is_learnt_from(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    opened = tiny.study(tmp_path_factory, tmp_path_factory.mktemp("verbs") / "digits")
    small = opened.device("ecp5-25f")
    mine = {name: replace(small, name=name) for name in ("my-ecp5", "ecp5-25f", "other")}
    opened = replace(opened, devices=mine)
    monkeypatch.setattr(measure, "measure_all", lambda *_: iter(()))
    learnt = "`codesign fit` learns accuracy from 20 networks (supernet)."
    for modelled in (False, True):
        verbs.profile(opened, 10, 10, 4, modelled, None, False, None)
        assert capsys.readouterr().out.splitlines() == [
            "Nothing is simulated on my-ecp5, other: engines are built for ecp5-25f, ecp5-45f, "
            "ecp5-85f only.",
            learnt,
        ][modelled:]  # fmt: skip


def test_resources_of_a_device_without_engines_are_only_modelled() -> None:
    opened = open_study(Path(__file__).parents[1] / "data" / "studies" / "fashion")
    told = verbs.rests_on(opened, ["arria10-gx1150"])
    assert told.endswith("; DSP, block RAM and LUT are modelled, without intervals")
    told = verbs.rests_on(opened, ["arria10-gx1150", "ecp5-25f"])
    assert told.endswith(" (DSP and block RAM of an ECP5 are exactly those of place and route)")
