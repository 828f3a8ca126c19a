"""What ``import convbench`` imports: NumPy, and nothing heavier."""

import subprocess
import sys

HEAVY = "numba llvmlite scipy pyfftw matplotlib rich PIL jinja2 asv platformdirs ml_dtypes"
PEERS = "torch onnx onnxruntime openvino cv2"
SLOW_STANDARD_MODULES = "statistics decimal asyncio unittest importlib.metadata"


def _loaded_by(code, names):
    """Which of the modules a new process has after `code`."""
    report = f"import sys\n{code}\nprint(*[name for name in {names.split()!r} if name in sys.modules])"
    return subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, check=True).stdout.split()


def test_import_loads_nothing_heavier_than_numpy():
    assert _loaded_by("import convbench", f"{HEAVY} {PEERS}") == []


def test_import_loads_no_slow_module_of_the_standard_library():
    before = _loaded_by("import numpy", SLOW_STANDARD_MODULES)  # editable installs and NumPy may bring some
    assert _loaded_by("import convbench", SLOW_STANDARD_MODULES) == before


def test_import_loads_no_engine():
    code = "import convbench, convbench.spec, convbench.records, convbench.cli"
    assert _loaded_by(code, "convbench.engines convbench.engines.direct convbench.engines.fft convbench.matrices") == []


def test_asking_about_engines_loads_nothing_that_computes():
    code = "import convbench; convbench.select(convbench.ConvSpec.parse('mb1ic1ih9oc1oh9kh3ph1'))"
    assert _loaded_by(code, "numba llvmlite scipy pyfftw") == []


def test_no_other_library_is_imported_until_it_is_enabled():
    code = (
        "import convbench; convbench.peers.NAMES; convbench.engines(); import convbench.peers.adapters, convbench.cli"
    )
    assert _loaded_by(code, PEERS) == []
    code = "import convbench; convbench.peers.disable(); convbench.peers.enable('scipy')"
    assert _loaded_by(code, f"scipy {PEERS}") == ["scipy"]
