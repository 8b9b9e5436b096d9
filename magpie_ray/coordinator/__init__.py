"""Which partition to whom, when to replace, when to give up. Knows no Ray."""
