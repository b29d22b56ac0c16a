"""The command line: argv to calls, and the only place that knows of options."""

from landscape.runtime.interrupts import take_over


def start() -> None:
    """The console script: Ctrl-C and SIGTERM are handled before anything that takes time is imported."""
    take_over()
    from landscape.cli.main import main

    main()
