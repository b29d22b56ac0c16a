"""The command line: argv to calls, and the only place that knows of options."""
