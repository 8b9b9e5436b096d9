"""Helpers that know nothing of builds: text for people, logs, secrets, import paths. Modules stand alone."""
