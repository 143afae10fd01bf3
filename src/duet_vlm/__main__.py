"""`python -m duet_vlm`: the `duet` command."""

from .cli.main import main

if __name__ == "__main__":
    main()
