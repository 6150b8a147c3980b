"""A night with no account: providers and an SSH host on loopback, with every fault on call.

`EmulatedProvider` speaks the Messages API and plays tapes through the agent's
own tools; `LoopbackHost` is an SSH host whose link can be cut, frozen or
refused. `python -m overnight.rehearsal` runs both in the foreground.
"""
