"""Workloads that are the same mathematics in every library, and the runner that lets libraries take turns at them.

Nothing here is needed to use symgrad; it uses public names only.
"""
