"""Results of the commands as text for people. Invariant: a view only formats; it reads nothing."""
