"""What an operator starts; composition only."""

import os

# Prefect reports usage to its makers unless told not to, and looks when it is first imported; a user's own word stays
os.environ.setdefault("DO_NOT_TRACK", "1")
# a killed flow is told from a working one by its heartbeat (deployments/automations.py); Prefect sends one in 180 s
os.environ.setdefault("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", "30")
