"""One module for each command of ``python -m lab``; each has ``run(arguments) -> exit code``."""
