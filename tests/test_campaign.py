"""Campaigns as a study keeps them: what is damaged is refused in a sentence."""

import json
from typing import Any

import pytest
import tiny

from codesign_kernel import campaign, fits, meters
from codesign_kernel.campaign import Campaign
from codesign_kernel.constraints import Constraints
from codesign_kernel.errors import InputError
from codesign_kernel.improvement import Improvement
from codesign_kernel.study import Study

LARGE = tiny.DEVICES[1]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study that was improved in one round."""
    study = tiny.study(tmp_path_factory, tmp_path_factory.mktemp("campaign") / "digits")
    with pytest.MonkeyPatch.context() as patch:
        tiny.quick_fit(patch)
        work = Improvement(study, [LARGE], Constraints(), 0, 3, meters.Accuracy(study))
        assert len(list(work.run(2, 1))) == 2
    return study


def test_campaigns_come_back_as_they_were_saved(made: Study) -> None:
    (found,) = campaign.load(made)
    assert (found.spent, found.open, found.closed) == (2, [], False)
    campaign.save(made, [found])
    assert campaign.load(made) == [found]


def test_those_of_before_had_no_fronts(made: Study) -> None:
    path = made.root / campaign.CHOSEN
    content = json.loads(path.read_text())
    del content["campaigns"][0]["fronts"]
    path.write_text(json.dumps(content))
    (found,) = campaign.load(made)
    assert found.fronts == []


def damages(content: dict[str, Any]) -> list[Any]:
    part = content["campaigns"][0]
    whole = Campaign(**part)
    parts: list[Any] = [
        part | {"more": 1},
        part | {"asked": []},
        part | {"box": {"low": [0, 0, 0]}},
        part | {"box": {"low": [0, 0, "x"], "high": [1, 1, 1]}},
        part | {"start": [["a", 1, 2]]},
        part | {"rounds": [*whole.rounds[:1], {"round": 1}]},
        part | {"rounds": [whole.rounds[0] | {"measured": None}]},
        part | {"designs": [whole.designs[0] | {"accuracy_value": None}]},
        part | {"designs": [whole.designs[0] | {"architecture": 3}]},
        part | {"designs": [{"round": 1}]},
        part | {"designs": 3},
        part | {"designs": {}},
        part | {"rounds": {}, "box": {}},
        part | {"rounds": [whole.rounds[0] | {"measured": 10**400}]},
        part | {"rounds": [whole.rounds[0] | {"measured": "1.0"}]},
        part | {"rounds": [whole.rounds[0] | {"latency_ms_off": "x"}]},
        part | {"rounds": [whole.rounds[0] | {"power_w_new": float("nan")}]},
        part | {"rounds": whole.rounds[:1], "designs": [whole.designs[0] | {"latency_ms": "1"}]},
        part | {"rounds": whole.rounds[:1], "designs": [whole.designs[0] | {"power_w_low": None}]},
        *(part | {"fronts": value} for value in ({}, "", None, [True], [0], [9], [1.5], ["1"])),
    ]
    return [{"version": "1", "campaigns": [part]} for part in parts] + [
        {}, {"version": "1", "campaigns": 3}, {"version": "1", "campaigns": [3]},
    ]  # fmt: skip


def test_a_damaged_file_is_refused(made: Study) -> None:
    path = made.root / campaign.CHOSEN
    content = path.read_bytes()
    try:
        for damage in damages(json.loads(content)):
            path.write_text(json.dumps(damage))
            with pytest.raises(InputError) as raised:
                campaign.load(made)
            tiny.assert_one_sentence(str(raised.value))
        path.write_text('{"version": "1", "campaigns": [{"designs": [{}]}]}')
        with pytest.raises(InputError, match="is damaged: it holds no designs that were chosen"):
            fits.chosen(made)
    finally:
        path.write_bytes(content)
