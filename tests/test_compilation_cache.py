"""Compiled programs outlive their process, and the cache is never in the way.

Each test is a process of its own: JAX reads its environment once, and `make test` gives it a cache of its own.
"""

import json
import os
import subprocess
import sys
import zlib
from pathlib import Path

import jax
import platformdirs
import pytest

from concordax import compilation_cache

COUNT = """
import json, sys, warnings
import jax, jax.numpy as jnp, numpy as np
from concordax.compilation_cache import persistent_cache

counts = {"compile_requests_use_cache": 0, "cache_hits": 0}
def hear(event, **_):
    name = event.split("/")[-1]
    counts[name] = counts.get(name, 0) + 1
jax.monitoring.register_event_listener(hear)
def done(**more):
    hits = counts["cache_hits"]
    print(json.dumps({"read": hits, "compiled": counts["compile_requests_use_cache"] - hits, **more}))
"""
PROGRAM = """
with persistent_cache:
    jax.jit(lambda x: jnp.sin(x) @ x)(np.ones((8, 8)))
"""
FIT = """
from concordax.sklearn import GGNRegressor
x = np.random.default_rng(0).normal(size=(int(sys.argv[1]), 3))
model = GGNRegressor(hidden_widths=(3,), max_steps=2).fit(x, np.sin(x[:, 0]))
mean, std = model.predict(x[:5], return_std=True)
done(numbers=[*mean, *std], gamma=model.effective_parameters_)
"""


def run(code: str, *arguments: str, **variables: str) -> dict:
    """What the code hands to `done`, in an interpreter where warnings are errors and nothing may be printed besides."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "CONCORDAX_"))}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", COUNT + code, *arguments],
        env={**clean, **variables},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)


def programs(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.rglob("*-cache"))


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A folder that a fit of 100 rows has filled, and what the fit found."""
    pytest.importorskip("sklearn")
    folder = tmp_path_factory.mktemp("programs") / "made" / "by the fit"
    result = run(FIT, "100", CONCORDAX_CACHE_DIR=str(folder))
    assert result["read"] == 0
    assert result["compiled"] == len(programs(folder)) > 3
    return folder, result


@pytest.mark.parametrize("rows", ["100", "98"])
def test_second_process_compiles_nothing(fitted, rows):
    """98 rows are filled up to 100."""
    folder, first = fitted
    before = programs(folder)
    second = run(FIT, rows, CONCORDAX_CACHE_DIR=str(folder))
    assert (second["read"], second["compiled"]) == (first["compiled"], 0)
    assert programs(folder) == before
    assert (second["numbers"] == first["numbers"]) == (rows == "100")


def test_fit_with_damaged_programs_compiles_them_anew(fitted):
    """And replaces them: the third process reads all."""
    folder, first = fitted
    # In their place, for JAX's keys hold the path of the folder.
    for file in folder.glob("*-cache"):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    second, third = (run(FIT, "100", CONCORDAX_CACHE_DIR=str(folder)) for _ in range(2))
    assert second["numbers"] == third["numbers"] == first["numbers"]
    assert (second["compiled"], third["read"], third["compiled"]) == (first["compiled"], first["compiled"], 0)
    assert len(programs(folder)) == first["compiled"]


@pytest.mark.parametrize("content", [b"", b"x" * 99, zlib.compress(b"x" * 99)], ids=["empty", "noise", "no program"])
def test_damage_of_any_kind_is_repaired(content, tmp_path):
    run(PROGRAM + "done()", CONCORDAX_CACHE_DIR=str(tmp_path))
    for file in tmp_path.glob("*-cache"):
        file.write_bytes(content)
    second, third = (run(PROGRAM + "done()", CONCORDAX_CACHE_DIR=str(tmp_path)) for _ in range(2))
    assert (second["read"], third["compiled"]) == (0, 0)


def test_folder_that_is_made_is_private(tmp_path):
    folder = tmp_path / "a" / "b"
    run(PROGRAM + "done()", CONCORDAX_CACHE_DIR=str(folder))
    assert folder.stat().st_mode & 0o077 == 0


def test_programs_go_to_the_users_cache_by_default(tmp_path):
    place = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / ".cache"), "TF_CPP_MIN_LOG_LEVEL": "3"}
    run(PROGRAM + "done()", **place)
    assert programs(tmp_path)
    (folder,) = {file.parent for file in tmp_path.rglob("*-cache")}
    assert folder.name == "concordax"


def test_empty_variable_keeps_nothing(tmp_path):
    place = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / ".cache"), "TF_CPP_MIN_LOG_LEVEL": "3"}
    run(PROGRAM + "done()", CONCORDAX_CACHE_DIR="", **place)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("way", ["environment", "configuration", "switched off"])
def test_users_setting_wins(way, tmp_path):
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    setting = {
        "environment": "",
        "configuration": f"jax.config.update('jax_compilation_cache_dir', {str(theirs)!r})\n",
        "switched off": "jax.config.update('jax_enable_compilation_cache', False)\n",
    }[way]
    variables = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    if way == "environment":
        variables["JAX_COMPILATION_CACHE_DIR"] = str(theirs)
    check = "jax.jit(lambda x: x + 3)(np.ones(3))\ndone(dir=jax.config.jax_compilation_cache_dir)"
    after = run(setting + PROGRAM + check, CONCORDAX_CACHE_DIR=str(ours), **variables)
    assert not ours.exists()
    if way == "switched off":
        assert after["dir"] is None
    else:
        assert after["dir"] == str(theirs)
        # The program within the context and that after it: the user's cache was not reset to anything else.
        assert len(programs(theirs)) >= 2


@pytest.mark.parametrize(
    ("place", "obstacle"),
    [
        ("file/folder", ""),
        # As on a full disk, or in a folder of someone else.
        ("folder", "import pathlib\ndef full(*_): raise OSError(28, 'full')\npathlib.Path.write_bytes = full\n"),
        ("folder", "import pathlib\ndef no(*_, **__): raise PermissionError\npathlib.Path.read_bytes = no\n"),
    ],
    ids=["cannot be made", "cannot be written", "cannot be read"],
)
def test_unusable_folder_is_no_obstacle(place, obstacle, tmp_path):
    (tmp_path / "file").touch()
    folder = tmp_path / place
    if "read_bytes" in obstacle:
        run(PROGRAM + "done()", CONCORDAX_CACHE_DIR=str(folder))
    result = run(obstacle + PROGRAM + "done()", CONCORDAX_CACHE_DIR=str(folder))
    assert result["read"] == 0


def test_configuration_is_given_back(tmp_path):
    code = """
state = lambda: (dict(jax.config.values), list(warnings.filters), warnings.showwarning)
jax.jit(lambda x: x + 1)(np.ones(3))  # JAX has looked for its cache before
before = state()
try:
    with persistent_cache:
        assert state() != before
        with persistent_cache:
            pass
        jax.jit(lambda x: x + 2)(np.ones(3))
        raise KeyError
except KeyError:
    pass
assert state() == before
jax.jit(lambda x: x * 3)(np.ones(3))
jax.config.update("jax_compilation_cache_dir", sys.argv[1])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.jit(lambda x: x * 4)(np.ones(3))
done()
"""
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    run(code, str(theirs), CONCORDAX_CACHE_DIR=str(ours))
    assert (len(programs(ours)), len(programs(theirs))) == (1, 1)


def test_cache_is_on_until_the_last_thread_leaves(tmp_path):
    code = """
import threading
inside, leave = threading.Event(), threading.Event()
def work():
    with persistent_cache:
        inside.set()
        leave.wait()
        jax.jit(lambda x: x + 1)(np.ones(3))
thread = threading.Thread(target=work)
with persistent_cache:
    thread.start()
    inside.wait()
leave.set()
thread.join()
done(dir=jax.config.jax_compilation_cache_dir)
"""
    assert run(code, CONCORDAX_CACHE_DIR=str(tmp_path))["dir"] is None
    assert len(programs(tmp_path)) == 1


def test_other_warnings_are_shown_as_ever(tmp_path):
    code = """
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    with persistent_cache:
        warnings.warn("mine")
done(caught=[str(warning.message) for warning in caught])
"""
    assert run(code, CONCORDAX_CACHE_DIR=str(tmp_path))["caught"] == ["mine"]


def test_oldest_programs_go_first(tmp_path, monkeypatch):
    for age, name in enumerate("abcd"):
        file = tmp_path / f"{name}-cache"
        file.write_bytes(b"x" * 100)
        # c was read lately, though it was written long ago.
        os.utime(file, (10**9 if name == "c" else 1000 - age, 1000 - age))
    (tmp_path / "notes").write_bytes(b"x" * 1000)
    monkeypatch.setattr(compilation_cache, "_MAX_BYTES", 250)
    assert compilation_cache._prepared(tmp_path)
    assert programs(tmp_path) == ["a-cache", "c-cache"]
    assert (tmp_path / "notes").exists()


def test_versions_that_give_false_alarm_are_asked_for(monkeypatch):
    monkeypatch.delenv("CONCORDAX_CACHE_DIR")
    monkeypatch.setattr(jax, "__version_info__", (0, 10, 1))
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "1")
    assert compilation_cache.cache_folder() is None
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    assert compilation_cache.cache_folder() is not None
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "1")
    monkeypatch.setattr(jax, "__version_info__", (0, 10, 2))
    assert compilation_cache.cache_folder() is not None
    monkeypatch.setattr(jax, "__version_info__", (0, 10, 1))
    monkeypatch.setenv("CONCORDAX_CACHE_DIR", "here")
    assert compilation_cache.cache_folder() == Path("here").absolute()


def test_without_a_home_nothing_is_kept(monkeypatch):
    monkeypatch.delenv("CONCORDAX_CACHE_DIR")
    monkeypatch.setattr(jax, "__version_info__", (0, 10, 2))
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda *_, **__: Path("~/.cache/concordax"))
    assert compilation_cache.cache_folder() is None
