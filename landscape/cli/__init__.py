"""The command line: it turns argv into calls, and is the only place that knows options."""

from landscape.runtime.interrupts import take_over


def start() -> None:
    """The console script: Ctrl-C and SIGTERM are handled before anything that takes time is imported."""
    take_over()
    from landscape.cli.main import main

    main()
