"""coord stops distributed jobs on all their hosts, and proves that everything is gone.

This package is the control plane: what a shutdown is, and its record in Redis. It starts no process and signals
none; the host side is the package `workers`.
"""

__version__ = "0.1.0"
