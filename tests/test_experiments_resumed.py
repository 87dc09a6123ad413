"""Experiments that are interrupted, killed and taken up again, and checkpoints that are damaged or of another run."""

import os
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from concordax.errors import UsageError
from concordax.experiments import checkpoint, loss_curves, record
from concordax.experiments.record import ExperimentError
from experiment_cases import TINY, same, stopping_after, uninterrupted, without_seconds


# Calls: 12 of published, 8 of corrected, 8 of the trust region, then one a point of gradient descent.
@pytest.mark.parametrize("calls", [1, 5, 12, 15, 24, 33, 50])
def test_interrupted_and_resumed_equals_uninterrupted(tmp_path, calls):
    with pytest.raises(KeyboardInterrupt):
        loss_curves.run(tmp_path, config=TINY, progress=stopping_after(calls, KeyboardInterrupt))
    assert not (tmp_path / "loss-curves.json").exists()
    result = loss_curves.run(tmp_path, config=TINY, resume=True)
    assert same(without_seconds(result), without_seconds(uninterrupted().record))
    assert all(np.all(np.diff([0.0, *curve["seconds"]]) > 0) for curve in result.curves)


def test_a_run_that_was_killed_goes_on_from_its_last_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(loss_curves, "SAVE_EVERY", 0.0)
    with pytest.raises(ZeroDivisionError):
        loss_curves.run(tmp_path, config=TINY, progress=stopping_after(18, ZeroDivisionError))
    steps = []
    original = loss_curves._next
    monkeypatch.setattr(loss_curves, "_next", lambda *a: steps.append((a[1].mode, a[2].iteration)) or original(*a))
    result = loss_curves.run(tmp_path, config=TINY, resume=True)
    # The step that was being reported when the run ended is the only one taken twice.
    assert steps[0] == ("corrected", 5)
    assert same(without_seconds(result), without_seconds(uninterrupted().record))


def test_checkpoints_are_written_as_often_as_promised(tmp_path, monkeypatch):
    now, saves = [0.0], []
    monkeypatch.setattr(loss_curves.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(loss_curves.checkpoint, "save", lambda _path, _identity, run: saves.append(run.iteration))

    def progress(*_):
        now[0] += 8.0

    config = replace(TINY, corrected=1, trust_region=1, gradient_descent=1, rates=(1.0,))
    loss_curves.run(tmp_path, config=config, progress=progress)
    assert saves[:5] == [3, 6, 9, 12, 12]


def test_what_is_finished_is_not_run_again_and_seeds_can_be_added(tmp_path, monkeypatch):
    config = replace(TINY, published=3, corrected=2, trust_region=2, gradient_descent=4)
    first = loss_curves.run(tmp_path, config=config)
    seen = []
    original, advance = loss_curves._next, loss_curves._advance
    monkeypatch.setattr(loss_curves, "_next", lambda *a: seen.append(a[1].seed) or original(*a))
    # Nor is anything compiled for it.
    with monkeypatch.context() as patch:
        patch.setattr(loss_curves, "_advance", lambda *a: seen.append("compiled") or advance(*a))
        again = loss_curves.run(tmp_path, config=config, resume=True)
    assert same(again.curves, first.curves)
    assert seen == []
    both = loss_curves.run(tmp_path, config=config, resume=True, seeds=2)
    assert set(seen) == {1}
    assert both.seeds == [0, 1]
    assert same(both.curves[:4], first.curves)
    assert [curve["seed"] for curve in both.curves] == [0] * 4 + [1] * 4
    assert both.curves[4]["train_loss"] != both.curves[0]["train_loss"]


def test_without_resume_checkpoints_are_removed(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        loss_curves.run(tmp_path, config=TINY, progress=stopping_after(15, KeyboardInterrupt))
    other = replace(TINY, published=2)
    with pytest.raises(KeyboardInterrupt):
        loss_curves.run(tmp_path, config=other, progress=stopping_after(1, KeyboardInterrupt))
    assert os.listdir(tmp_path / "checkpoints") == ["seed-0-published.npz"]


def test_progress_reports_what_and_a_rising_share(tmp_path):
    calls = []
    config = replace(TINY, published=3, corrected=2, trust_region=2, gradient_descent=4)
    loss_curves.run(tmp_path, config=config, seeds=2, progress=lambda what, share: calls.append((what, share)))
    shares = [share for _, share in calls]
    assert np.all(np.diff(shares) > 0)
    assert shares[-1] == pytest.approx(1.0)
    assert calls[0][0] == "published, seed 0"
    assert "gradient descent at rate 5, seed 1" in dict(calls)


def test_at_least_one_seed_is_needed(tmp_path):
    with pytest.raises(UsageError, match="seeds=0"):
        loss_curves.run(tmp_path, seeds=0)


# Checkpoints ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def interrupted(tmp_path):
    """A folder with a checkpoint after five steps of the published mode, and the checkpoint."""
    with pytest.raises(KeyboardInterrupt):
        loss_curves.run(tmp_path, config=TINY, progress=stopping_after(5, KeyboardInterrupt))
    return tmp_path, tmp_path / "checkpoints" / "seed-0-published.npz"


def test_another_configuration_is_refused(interrupted):
    folder, file = interrupted
    before = file.read_bytes()
    with pytest.raises(ExperimentError, match=r"config\.strength was 0\.0001 and is now 0\.01"):
        loss_curves.run(folder, config=replace(TINY, strength=0.01), resume=True)
    assert file.read_bytes() == before


def test_other_versions_are_refused(interrupted, monkeypatch):
    original = record.versions()
    monkeypatch.setattr(loss_curves, "versions", lambda: {**original, "jax": "0.0.1"})
    with pytest.raises(ExperimentError, match=r"versions\.jax was .* is now '0\.0\.1'"):
        loss_curves.run(interrupted[0], config=TINY, resume=True)


def test_another_format_version_is_refused(interrupted, monkeypatch):
    monkeypatch.setattr(checkpoint, "FORMAT_VERSION", 2)
    with pytest.raises(ExperimentError, match="has format version 1; this concordax reads 2"):
        loss_curves.run(interrupted[0], config=TINY, resume=True)


def flip(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]


@pytest.mark.parametrize(
    "damage",
    [lambda c: c[: len(c) // 2], lambda _: b"", lambda _: b"garbage" * 100, flip],
    ids=["cut", "empty", "garbage", "flipped"],
)
def test_a_damaged_checkpoint_is_refused(interrupted, damage):
    folder, file = interrupted
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ExperimentError, match=r"seed-0-published\.npz' is damaged"):
        loss_curves.run(folder, config=TINY, resume=True)


class Harmful:
    """Makes a folder when it is unpickled."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize(
    "change",
    [
        {"curve": np.zeros((5, 3))},
        {"state_0": np.zeros((3, 3))},
        {"state_0": np.zeros((16, 4), np.float32)},
        {"header": np.array("[]")},
        {"header": np.array("{")},
        {"header": np.array('{"format_version": 1, "identity": []}')},
        {"curve": None},
        {"state_1": None},
    ],
    ids=["curve", "shape", "type", "list", "json", "identity", "no curve", "no leaf"],
)
def test_a_checkpoint_with_other_contents_is_refused(interrupted, change):
    folder, file = interrupted
    with np.load(file) as stored:
        content = dict(stored) | change
    np.savez(file, **{name: value for name, value in content.items() if value is not None})
    with pytest.raises(ExperimentError, match="is damaged"):
        loss_curves.run(folder, config=TINY, resume=True)


def test_a_pickle_in_a_checkpoint_is_refused_and_not_run(interrupted):
    folder, file = interrupted
    with np.load(file) as stored:
        content = dict(stored)
    target = folder / "harm"
    np.savez(file, **content | {"iteration": np.array([Harmful(target)], dtype=object)})
    with pytest.raises(ExperimentError, match="is damaged"):
        loss_curves.run(folder, config=TINY, resume=True)
    assert not target.exists()


def test_a_checkpoint_holds_no_pickle(interrupted):
    with zipfile.ZipFile(interrupted[1]) as archive:
        for name in archive.namelist():
            assert b"'descr': '|O'" not in archive.read(name)[:128]


def test_a_write_that_fails_leaves_the_old_checkpoint(interrupted, monkeypatch):
    folder, file = interrupted
    before = file.read_bytes()

    def failing(stream, **_):
        stream.write(b"half")
        raise OSError("full")

    monkeypatch.setattr(checkpoint.np, "savez", failing)
    with pytest.raises(OSError, match="full"):
        loss_curves.run(folder, config=TINY, resume=True)
    assert file.read_bytes() == before
    assert os.listdir(file.parent) == [file.name]
