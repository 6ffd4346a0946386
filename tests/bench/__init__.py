"""Measures how fast jobs are stopped, beside RQ, the naive loop and the kernel, all in one run. Asserts no times."""
