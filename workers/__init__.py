"""The host side of coord: starts a job's processes on one host, stops them, and proves that they are gone."""
