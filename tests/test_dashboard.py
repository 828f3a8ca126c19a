"""``convbench bench --publish``: asv's pages, a point for each run."""

import json
import os
import shutil
import subprocess
import sys
import tempfile

import pytest

pytest.importorskip("asv")
from convbench import dashboard

TINY = "mb1ic1ih9oc1oh9kh3ph1"


@pytest.mark.skipif(shutil.which("git") is None, reason="asv needs git, which is not on the PATH")
def test_two_runs_are_two_points(tmp_path):
    site = tmp_path / "site"
    argv = [sys.executable, "-m", "convbench", "bench", "--quick", "--engines", "direct", "--problem", TINY, "--json"]
    with tempfile.TemporaryDirectory(prefix="cb-") as scratch:
        environment = {**os.environ, "CONVBENCH_CACHE_DIR": str(tmp_path / "records"), "TMPDIR": scratch}
        for _ in range(2):
            done = subprocess.run(
                [*argv, "--publish", str(site)], cwd=tmp_path, env=environment, capture_output=True, text=True
            )
            assert done.returncode == 0, f"{TINY}: {done.stderr}"
    assert json.loads(done.stdout)["dashboard"] == str(site / "html" / "index.html")
    index = json.loads((site / "html" / "index.json").read_text())
    assert len(index["revision_to_hash"]) == 2
    graphs = (site / "html" / "graphs").rglob("convolution.Contest.track_time.json")
    points = [json.loads(path.read_text()) for path in graphs if "summary" not in path.parts]
    assert [len(each) for each in points] == [2], TINY


def test_an_earlier_runs_problems_stay():
    def described(problem):
        return {"version": 2, "a": {"params": [[problem], ["'direct'"]]}}

    assert dashboard.merged(described("'x'"), described("'y'"))["a"]["params"] == [["'x'", "'y'"], ["'direct'"]]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"cannot be written.*--publish DIR"):
        dashboard.prepare(tmp_path / "file" / "site")
