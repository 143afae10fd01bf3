"""What is installed: the package whole, nothing beside it, and light."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from email.parser import Parser
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "duet_vlm"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_is_under_12_mb(wheel: Path) -> None:
    unpacked = sum(file.file_size for file in ZipFile(wheel).infolist())
    assert wheel.stat().st_size < unpacked < 12_000_000


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    files = [file for file in PACKAGE.rglob("*") if file.is_file() and "__pycache__" not in file.parts]
    own = {file.relative_to(PACKAGE.parent).as_posix() for file in files}
    held = {name for name in ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert held == {name for name in own if not name.startswith("duet_vlm/pages/weights/")}
    assert {"duet_vlm/py.typed", "duet_vlm/demo/weights/model.safetensors"} <= held


def test_the_metadata_say_what_a_stranger_looks_for(wheel: Path) -> None:
    archive = ZipFile(wheel)
    (name,) = (name for name in archive.namelist() if name.endswith("METADATA"))
    told = Parser().parsestr(archive.read(name).decode())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert told["License-Expression"] == "Apache-2.0"
    assert {url.split(",")[0] for url in told.get_all("Project-URL")} == set(project["urls"])
    classifiers = told.get_all("Classifier")
    for version in ("3.11", "3.12", "3.13"):
        assert f"Programming Language :: Python :: {version}" in classifiers
    assert "Typing :: Typed" in classifiers and any(line.startswith("Operating System ::") for line in classifiers)


def test_importing_the_package_loads_no_torch() -> None:
    code = "import sys, duet_vlm; duet_vlm.DuetConfig(); sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
