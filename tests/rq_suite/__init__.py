"""RQ's own tests with coord's worker class in place of RQ's: what its users rely on, checked by who wrote it."""
