"""python -m ldmctl, and the `ldmctl` executable."""

from ldmctl.cli.app import run


def main() -> None:
    """Run the command line and exit with its code."""
    raise SystemExit(run())


if __name__ == "__main__":
    main()
