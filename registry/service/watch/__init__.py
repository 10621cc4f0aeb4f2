"""Watches: open one at a version, deliver its changes, resume it on any replica."""
