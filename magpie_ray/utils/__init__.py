"""Helpers that know nothing of builds.

Text for people, logs, secrets, import paths; and time: a clock without pauses, calls that may hang, the end
of the process.
"""
