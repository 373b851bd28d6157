"""Commands with options and exit codes of their own; `cli` holds the small ones and puts all together.

Each module has `add_arguments(parser)` and `run(arguments)`, which returns the exit code.
"""
