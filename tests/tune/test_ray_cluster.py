# SPDX-License-Identifier: Apache-2.0
"""A sweep on a Ray cluster of two machines, which are two raylets on this one. Skipped where Ray is not installed
(python/requirements/tune.txt)."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from kvq.tune.database import Database

pytest.importorskip("ray")
SWEEP = """
formats = ["kivi-4", "kvq-2"]
contexts = ["1k", "2k", "4k"]
targets = ["x86-64-v3"]

[[model]]
name = "small"
q_heads = 6
kv_heads = 2
head_dim = 64
dtype = "float32"
"""


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    from ray.cluster_utils import Cluster

    import kvq

    folders = (Path(__file__).parent, Path(__file__).parents[1], Path(kvq.__file__).parents[1])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([*map(str, folders), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("KVQ_TEST_MARKS", str(tmp_path / "marks"))
    (tmp_path / "marks").mkdir()
    monkeypatch.setenv("KVQ_TUNE_DB", str(tmp_path / "tuning.db"))
    for name in ("RAY_DISABLE_IMPORT_WARNING", "RAY_USAGE_STATS_ENABLED"):
        monkeypatch.setenv(name, "0")
    memory = {"num_cpus": 1, "object_store_memory": 100 << 20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=memory)
    try:
        cluster.add_node(num_cpus=1, object_store_memory=100 << 20)
        cluster.wait_for_nodes()
        yield cluster
    finally:
        cluster.shutdown()


def marks(folder):
    """Process: problems that it began."""
    found = {}
    for file in sorted(folder.iterdir()):
        found.setdefault(int(file.name.split("-")[0]), []).append(file.read_text())
    return found


def kill_the_second(folder, killed):
    """Once both workers are in the middle of a problem."""
    for _ in range(1200):
        begun = marks(folder)
        if len(begun) == 2:
            killed.append(sorted(begun)[1])
            os.kill(killed[0], signal.SIGKILL)
            return
        time.sleep(0.05)


def sweep(*arguments):
    """In a process of its own, so that all that Ray prints is seen: (exit code, output, lines of progress)."""
    command = [sys.executable, "-m", "kvq", "tune", "sweep", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    return done.returncode, done.stdout, done.stderr.splitlines()


def test_a_worker_that_is_killed_in_the_middle_leaves_its_problem_to_the_other(cluster, tmp_path):
    """And nothing but the progress and the result is printed."""
    (tmp_path / "sweep.toml").write_text(SWEEP)
    given = [tmp_path / "sweep.toml", "--runner", "slow_runners:make", "--ray", cluster.address]
    killed = []
    killer = threading.Thread(target=kill_the_second, args=(tmp_path / "marks", killed))
    killer.start()
    code, out, lines = sweep(*given)
    killer.join()
    assert (code, out) == (0, f"{tmp_path / 'tuning.db'}: 6 tuned\n"), lines
    assert [line[:5] for line in lines] == [f"[{number}/6]" for number in range(1, 7)], lines
    assert sum("; a machine was lost while it worked on it" in line for line in lines) == 1
    begun = marks(tmp_path / "marks")
    (gone,) = killed
    (other,) = set(begun) - {gone}
    assert begun[gone][-1] in begun[other] and sum(map(len, begun.values())) == 7
    with Database(tmp_path / "tuning.db", readonly=True) as database:
        assert len(database.entries()) == 6 and database.verify() == []
    before = len(begun[other])
    assert sweep(*given, "-q") == (0, f"{tmp_path / 'tuning.db'}: 6 there already\n", [])
    assert len(marks(tmp_path / "marks")[other]) == before
