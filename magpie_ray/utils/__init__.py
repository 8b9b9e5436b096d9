"""Helpers that know nothing of builds.

Text for people, logs, secrets, import paths, code of the user, limits of the machine; and time: a clock
without pauses, calls that may hang, the end of the process.
"""
