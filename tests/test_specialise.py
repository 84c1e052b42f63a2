"""One subnet by itself: specialised from the supernet for a tenth of the work, or alone."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from codesign_kernel.batches import indices, to_tensor
from codesign_kernel.datasets import ArraySplit, Dataset, load
from codesign_kernel.errors import InputError
from codesign_kernel.files import digest, read_arrays, write_arrays
from codesign_kernel.space import Architecture, load_space
from codesign_kernel.specialise import (
    answers_of,
    fit_alone,
    fit_subnet,
    kept_answers,
    specialise,
    train_alone,
)
from codesign_kernel.supernet import Plain, Subnet, Supernet
from codesign_kernel.train import (
    Preset,
    accuracy,
    calibration_images,
    rate_at,
    subnet,
    train,
)

SPACE = load_space("digits")
SMALL = Architecture.parse("w8k3-w16k31")


@dataclass(frozen=True, eq=False)
class Counting(ArraySplit):
    """A split that notes how many images each read asked for."""

    reads: list[int]

    def batch(self, indices: np.ndarray) -> np.ndarray:
        self.reads.append(len(indices))
        return super().batch(indices)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load("digits")


@pytest.fixture(scope="module")
def supernet(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Supernet:
    """A supernet that learned through its extremes alone: others are poor, the largest is not."""
    path = tmp_path_factory.mktemp("supernet") / "net"
    preset = Preset(steps=50, batch=32, rate=0.1, random=0)
    return train(SPACE, digits, "tiny", 0, path, preset=preset)


def counted(digits: Dataset) -> tuple[Dataset, list[int]]:
    """The data set with a note of what is read of the training images, of which alone may be."""
    assert isinstance(digits.train, ArraySplit)
    reads: list[int] = []
    split = Counting(digits.train.images, digits.train.labels, reads)
    nothing = digits.test.part(np.arange(0))
    return replace(digits, train=split, validation=nothing, test=nothing), reads


def equal(one: nn.Module, other: nn.Module) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)


def test_specialising_starts_from_the_supernets_weights(
    digits: Dataset, supernet: Supernet
) -> None:
    none = specialise(supernet, SMALL, digits, Preset(steps=5, batch=32), 0)  # no step at all
    assert equal(none, subnet(supernet, SMALL, calibration_images(digits)))
    assert not none.training
    few = specialise(supernet, SMALL, digits, Preset(steps=20, batch=32, rate=1e-3), 0)
    assert not equal(none, few)
    for one, other in zip(none.parameters(), few.parameters(), strict=True):
        assert (one - other).abs().max() < 0.1


def test_specialising_leaves_the_supernet_as_it_was(digits: Dataset, supernet: Supernet) -> None:
    before = {name: value.clone() for name, value in supernet.state_dict().items()}
    specialise(supernet, SMALL, digits, Preset(steps=20, batch=32), 0)
    assert all(torch.equal(value, before[n]) for n, value in supernet.state_dict().items())


def test_specialising_costs_a_tenth_of_training_alone(digits: Dataset, supernet: Supernet) -> None:
    preset = Preset(steps=44, batch=20)
    data, reads = counted(digits)
    answers = answers_of(supernet, data)
    # Once for all subnets the largest one sees each image; it is recalibrated as all are.
    assert sorted(reads) == [137, 500, 500, 1024]
    reads.clear()
    specialise(supernet, SMALL, data, preset, 0, answers)
    steps = sorted(reads)[:-1]
    assert sorted(reads)[-1] == 1024
    assert set(steps) == {10}
    assert preset.steps * preset.batch / 40 < sum(steps) < preset.steps * preset.batch / 10
    reads.clear()
    train_alone(SPACE, SMALL, data, preset, 0)
    assert sorted(reads) == [20] * 44 + [1024]


class Stopping(Counting):
    """A split that is interrupted at the read with this number."""

    def batch(self, indices: np.ndarray) -> np.ndarray:
        if len(self.reads) == 12:
            raise KeyboardInterrupt
        return super().batch(indices)


def test_specialising_for_longer_goes_on_where_it_was_stopped(
    digits: Dataset, supernet: Supernet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preset, kept = Preset(steps=44, batch=20), tmp_path / "kept.safetensors"
    data, reads = counted(digits)
    answers = answers_of(supernet, digits)
    whole = specialise(supernet, SMALL, data, preset, 0, answers, 30)
    assert sorted(reads) == [10] * 30 + [1024]
    stopped = replace(data, train=Stopping(data.train.images, data.train.labels, []))
    monkeypatch.setattr("codesign_kernel.specialise.SAVE_EVERY_S", 0.0)
    with pytest.raises(KeyboardInterrupt):
        specialise(supernet, SMALL, stopped, preset, 0, answers, 30, kept)
    for left in (18, 0):  # the last time all was done
        reads.clear()
        again = specialise(supernet, SMALL, data, preset, 0, answers, 30, kept)
        assert sorted(reads) == [10] * left + [1024]
        assert equal(again, whole)
    write_arrays(kept, *read_arrays(kept)[:1], {"step": 31})
    with pytest.raises(InputError, match=r"step of .* is 31, but must be from 1 to 30"):
        specialise(supernet, SMALL, data, preset, 0, answers, 30, kept)
    write_arrays(kept, {}, {"step": 30})
    with pytest.raises(InputError, match=r"kept.safetensors is damaged: it lacks"):
        specialise(supernet, SMALL, data, preset, 0, answers, 30, kept)


def test_teacher_answers_each_training_image_in_order(digits: Dataset, supernet: Supernet) -> None:
    answers = answers_of(supernet, digits)
    assert answers.shape == (len(digits.train), 10)
    largest = SPACE.decode(SPACE.extremes()[1])
    network = subnet(supernet, largest, calibration_images(digits))
    some = np.array([0, 499, 500, 1136])
    with torch.no_grad():
        expected = network(to_tensor(digits.train.batch(some)))
    torch.testing.assert_close(answers[some].float(), expected, rtol=2e-3, atol=2e-3)


def test_teacher_is_asked_if_its_answers_are_not_given(digits: Dataset, supernet: Supernet) -> None:
    preset = Preset(steps=44, batch=20)
    asked = specialise(supernet, SMALL, digits, preset, 0)
    assert equal(
        asked, specialise(supernet, SMALL, digits, preset, 0, answers_of(supernet, digits))
    )
    # It is the answers that a subnet learns from: others make another subnet.
    wrong = torch.zeros(len(digits.train), 10).half()
    assert not equal(asked, specialise(supernet, SMALL, digits, preset, 0, wrong))


def test_answers_are_kept_beside_the_supernet_that_gave_them(
    digits: Dataset, supernet: Supernet, tmp_path: Path
) -> None:
    path, file = tmp_path / "answers.safetensors", tmp_path / "supernet.safetensors"
    file.write_bytes(b"one supernet")
    data, reads = counted(replace(digits, train=digits.train.part(np.arange(60))))
    expected = answers_of(supernet, data)

    def store(arrays: dict[str, np.ndarray]) -> None:
        write_arrays(path, arrays, {"supernet": digest(file)})

    for change in (
        lambda: None,  # there are none yet
        lambda: file.write_bytes(b"another supernet"),
        lambda: path.write_bytes(path.read_bytes()[:-1]),
        lambda: path.write_text("no answers"),
        lambda: store({}),
        lambda: store({"answers": expected.numpy()[:3]}),
        lambda: store({"answers": expected.float().numpy()}),
        lambda: store({"answers": np.full_like(expected.numpy(), np.nan)}),
    ):
        change()
        reads.clear()
        assert torch.equal(kept_answers(tmp_path, supernet, data), expected)
        assert reads
        reads.clear()
        assert torch.equal(kept_answers(tmp_path, supernet, data), expected)
        assert not reads


def test_answers_that_cannot_be_kept_are_given_all_the_same(
    digits: Dataset, supernet: Supernet, tmp_path: Path
) -> None:
    (tmp_path / "supernet.safetensors").write_bytes(b"one supernet")
    (tmp_path / "answers.safetensors").mkdir()
    kept = kept_answers(tmp_path, supernet, digits)
    assert torch.equal(kept, answers_of(supernet, digits))


def test_a_step_learns_from_labels_and_softened_answers(digits: Dataset) -> None:
    torch.manual_seed(0)
    begun = Subnet(SPACE, SMALL)
    answers = 3 * torch.randn(len(digits.train), 10)
    preset = Preset(steps=1, batch=64, decay=0.0)
    weight = begun.classifier.weight.detach().clone()
    rows = indices(len(digits.train), 64, 5, 0)
    images = to_tensor(digits.train.batch(rows))
    logits = begun.train()(images)
    hard = -logits.log_softmax(1)[torch.arange(64), digits.train.labels[rows]].mean()
    soft = -((answers[rows] / 2).softmax(1) * (logits / 2).log_softmax(1)).sum(1).mean()
    (gradient,) = torch.autograd.grad(0.1 * hard + 0.9 * 4 * soft, begun.classifier.weight)
    rate = rate_at(preset, 0, 1, 0.01)
    done = fit_subnet(begun, digits, preset, 1, 0.01, 5, answers=answers)
    # The first step of Nesterov's momentum 0.9 goes 1.9 times as far as the gradient.
    expected = weight - 1.9 * rate * gradient
    torch.testing.assert_close(done.classifier.weight.detach(), expected, rtol=1e-4, atol=1e-6)


def test_specialising_makes_a_poor_subnet_better(digits: Dataset, supernet: Supernet) -> None:
    before = accuracy(subnet(supernet, SMALL, calibration_images(digits)), digits.validation)
    network = specialise(supernet, SMALL, digits, Preset(steps=1100, batch=64, rate=0.1), 0)
    assert before < 80
    assert accuracy(network, digits.validation) > 90


def test_training_alone_learns(digits: Dataset) -> None:
    network = train_alone(SPACE, SMALL, digits, Preset(steps=150, batch=32), 0)
    assert not network.training
    assert accuracy(network, digits.validation) > 92
    assert network.mean.flatten().tolist() == digits.mean.tolist()
    assert network.std.flatten().tolist() == digits.std.tolist()


def test_any_plain_network_is_trained_alone(digits: Dataset) -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(32, momentum=None)
    block = nn.Sequential(nn.Conv2d(1, 32, 3, 2, 1), norm, nn.ReLU())
    network = fit_alone(Plain(SPACE, [block], 32), digits, Preset(steps=150, batch=32), 0)
    assert not network.training
    assert accuracy(network, digits.validation) > 60
    assert int(norm.num_batches_tracked) == 4  # those that it is calibrated on


def test_seed_decides(digits: Dataset, supernet: Supernet) -> None:
    preset = Preset(steps=30, batch=16)
    alone = [train_alone(SPACE, SMALL, digits, preset, seed) for seed in (0, 0, 1)]
    assert [equal(alone[0], other) for other in alone] == [True, True, False]
    tuned = [specialise(supernet, SMALL, digits, preset, seed) for seed in (0, 0, 1)]
    assert [equal(tuned[0], other) for other in tuned] == [True, True, False]


def test_bad_input_is_named(digits: Dataset, supernet: Supernet) -> None:
    preset = Preset(steps=20, batch=16)
    fewer = replace(digits, classes=digits.classes[:9])
    colour = replace(digits, shape=(8, 8, 3), mean=np.zeros(3, np.float32))
    foreign = Architecture.parse("w8k7-w16k3")
    for data, architecture, said in (
        (fewer, SMALL, "in 9 classes, but space digits"),
        (colour, SMALL, r"images of \(8, 8, 3\)"),
        (digits, foreign, "kernel of stage 1 of w8k7-w16k3"),
    ):
        with pytest.raises(InputError, match=said):
            specialise(supernet, architecture, data, preset, 0)
        with pytest.raises(InputError, match=said):
            train_alone(SPACE, architecture, data, preset, 0)


def test_divergence_is_named(digits: Dataset) -> None:
    preset = Preset(steps=20, batch=16, rate=1e6)
    with pytest.raises(InputError, match=r"training diverged: .* at step \d+\.$"):
        fit_subnet(Subnet(SPACE, SMALL), digits, preset, 20, 1e6, 0)
