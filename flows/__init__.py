"""What an operator starts; composition only."""

import os

# Prefect reports usage to its makers unless told not to, and looks when it is first imported; a user's own word stays
os.environ.setdefault("DO_NOT_TRACK", "1")
