"""The wheel: the only room that knows hatchling.

A build hook, a metadata hook and a `-t mar` target, all named `mar`. Each only asks `project` what
to build and tells hatchling about it; the work is in the modules beside them.
"""
