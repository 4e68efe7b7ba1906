"""The command line: one file a verb group. :mod:`clew.cli.main` holds the table of verbs."""
