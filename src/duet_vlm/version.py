"""The one place of the version; pyproject.toml and everything that states it read it here."""

__version__ = "0.1.0"
