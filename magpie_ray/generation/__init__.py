"""Conversations over one engine, in turn-synchronous rounds."""
