"""Helpers that know nothing of builds: logs, secrets, import paths, text for people."""
