"""`python -m recipes.demo`, from the repository's root."""

from .commands import app

app(prog_name="python -m recipes.demo")
