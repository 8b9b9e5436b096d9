"""An engine in virtual time, for tests and for studies of scheduling without a model."""
