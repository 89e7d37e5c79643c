"""Devices: meshes and sharding, hosts, XLA's flags and compiled programs."""
