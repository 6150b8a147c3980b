"""Every agent against every fault, by the real pipeline: `python -m overnight.rehearsal.matrix`.

A case is data: what goes wrong, and the kinds that would be the right name for
it. A cell is a case with one agent. Preflight is left out on purpose: it would
shut the route, and what is measured here is what the run itself is named.
"""
