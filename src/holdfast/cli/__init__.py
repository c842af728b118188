"""The command line: arguments in, text and exit codes out; every decision is the engine's.

``main.py`` puts the commands together and turns errors into exit codes, ``call.py`` is one run of a command (who asks,
of which home, and how the answer is given), ``output.py`` writes for people and for programs, ``story/`` is what the
demo tells; the rest is one file a group.
"""
