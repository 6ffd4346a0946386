"""Turns snapshots and events into what is shown. Pure: prints nothing, asks no clock."""
