"""A file that fits in the head: no file of the package, a recipe or the tests is longer than 250 lines."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
LONGEST = 250


def test_no_file_is_too_long() -> None:
    files = [file for folder in ("src", "recipes", "tests") for file in (ROOT / folder).rglob("*.py")]
    lengths = {f.relative_to(ROOT).as_posix(): len(f.read_text(encoding="utf-8").splitlines()) for f in files}
    assert len(lengths) > 100
    long = {name.removeprefix("src/duet_vlm/") for name, lines in lengths.items() if lines > LONGEST}
    assert not long
