"""No library's noise reaches a terminal, and what needs no model is refused before torch is loaded."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from saved import photo, save

from duet_vlm.console.quiet import quiet
from duet_vlm.inputs.images import NOTE


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("style")
    save(folder / "model")
    photo(folder / "photo.png")
    return folder


def test_libraries_are_quiet_and_we_are_not(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    library = logging.getLogger("another.library")
    with quiet():
        library.warning("noise")
        library.error("an error")
        warnings.warn("noise", stacklevel=1)
        warnings.warn_explicit("spaCy is not used", UserWarning, "words.py", 1, module="duet_vlm.stage2.words")
        logging.getLogger("duet_vlm.inputs.images").log(NOTE, "only the first")
    assert capsys.readouterr().err == "duet: spaCy is not used\n"
    assert [record.getMessage() for record in caplog.records] == ["an error", "only the first"]
    assert library.isEnabledFor(logging.WARNING)


@pytest.mark.parametrize("command", ["run", "check", "eval"])
def test_no_warning_of_a_library_reaches_the_terminal(here: Path, tmp_path: Path, command: str) -> None:
    arguments = {
        "run": [str(here / "photo.png"), "--ask", "What is it?", "--max-new-tokens", "1"],
        "check": ["--keep", "0.5"],
        "eval": ["--limit", "9", "--keep", "0.5", "--out", str(tmp_path / "out")],
    }[command]
    model = [] if command == "eval" else ["--model", str(here / "model")]
    done = subprocess.run(
        [sys.executable, "-m", "duet_vlm", command, *arguments, *model], capture_output=True, text=True
    )
    assert done.returncode == 0 and done.stderr == "", done.stderr


REFUSED = [
    ["run", "none.png", "--ask", "what ?"],
    ["run", "none.mp4", "--ask", "what ?"],
    ["run", "photo.png", "--ask", " "],
    ["run", "photo.png", "--ask", "what ?", "--method", "magic"],
    ["run", "photo.png", "--ask", "what ?", "--show", "none/kept.png"],
    ["run", "photo.png", "--ask", "what ?", "--keep", "1.5"],
    ["run", "photo.png", "--ask", "what ?", "--tokens", "0"],
    ["run", "photo.png", "--ask", "what ?", "--tokens", "9", "--keep", "0.5"],
    ["run", "photo.png", "--ask", "what ?", "--model", "./nowhere"],
    ["run", "photo.png", "--ask", "what ?", "--method", "saved"],
    ["run", "photo.png", "--ask", "what ?", "--dtype", "int3"],
    ["run", "photo.png", "--ask", "what ?", "--json", "none/run.json"],
    ["budget", "--shape", "tiny"],
    ["budget", "--shape", "large", "--keep", "0.5"],
    ["budget", "--model", "model"],
    ["budget", "--model", "model", "--method", "magic", "--keep", "0.5"],
    ["budget", "--keep", "0.5"],
    ["budget", "--shape", "tiny", "--keep", "0.5", "--grid", "8x"],
    ["bench", "--shape", "tiny", "--method", "duet", "magic"],
    ["bench", "--model", "model", "--layers", "2"],
    ["bench", "--shape", "tiny", "--keep", "0.5", "2"],
    ["bench", "--shape", "tiny", "--config", "none.yaml"],
    ["eval", "--out", "out"],
    ["eval", "--out", "out", "--method", "magic", "--keep", "0.5"],
    ["eval", "--out", "out", "--method", "duet", "magic", "--keep", "0.5", "--strict"],
    ["eval", "--out", "out", "--keep", "0"],
    ["eval", "--out", "photo.png", "--keep", "0.5"],
    ["eval", "--out", "out", "--keep", "0.5", "--data", "none.jsonl"],
    ["batch", "--data", "none.jsonl", "--out", "out"],
    ["batch", "--data", "photo.png", "--out", "photo.png"],
    ["batch", "--data", "photo.png", "--out", "out", "--method", "magic"],
    ["batch", "--data", "photo.png", "--out", "out", "--tokens", "9", "--keep", "0.5"],
    ["batch", "--data", "photo.png", "--out", "out", "--dtype", "int3"],
    ["check", "--method", "magic"],
    ["check", "--keep", "2"],
    ["check", "--model", "nowhere"],
    ["serve", "--engine", "sglang"],
    ["serve", "--engine", "transformers", "--print"],
    ["serve", "--keep", "2"],
    ["serve", "--dtype", "int3"],
]


def test_what_needs_no_model_is_refused_before_torch_is_loaded(here: Path) -> None:
    code = (
        "import io, json, sys\nfrom contextlib import redirect_stderr\nfrom duet_vlm.cli.main import app\n"
        "for arguments in json.loads(sys.argv[1]):\n"
        "    with redirect_stderr(io.StringIO()) as told:\n"
        "        try:\n            app(arguments)\n        except SystemExit as ended:\n            code = ended.code\n"
        "    loaded = [name for name in ('torch', 'transformers') if name in sys.modules]\n"
        "    print(json.dumps([arguments, code, told.getvalue(), loaded]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, json.dumps(REFUSED)], capture_output=True, text=True, cwd=here)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == len(REFUSED), done.stderr
    for arguments, exit_code, told, loaded in rows:
        assert exit_code == 2 and told.startswith("duet: ") and told.count("\n") == 1, (arguments, told)
        assert not loaded, arguments


def test_threads_are_torchs(here: Path) -> None:
    code = (
        "import sys, torch\nfrom duet_vlm.cli.main import app\n"
        "torch.set_num_threads(2)\n"
        "try:\n    app(sys.argv[1:])\nexcept SystemExit:\n    print('threads', torch.get_num_threads())\n"
    )
    arguments = ["run", "photo.png", "--ask", "what ?", "--model", "model", "--max-new-tokens", "1", "--threads", "1"]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=here)
    assert "threads 1\n" in done.stdout, done.stderr
