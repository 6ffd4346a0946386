"""Measures how fast jobs are stopped and what coord costs beside peers and the kernel in one run. Asserts no times."""
