"""The real agents, followers and scripts of coord, in one process, on a virtual clock and a virtual network.

One integer makes a history: the same integer, the same history. `python -m tests.sim --seed N` shows one.
"""
