"""Makes a Prefect API of your own ready for overnight: registers our block types.

Run it after every upgrade, as often as you like: `python -m deployments.bootstrap`.
The private server of a batch needs none of it.
"""

from __future__ import annotations

import sys

from prefect.settings import get_current_settings

from blocks.register import register


def main() -> int:
    """0, or 2 when no API is configured: Prefect would register them in a database that nobody reads."""
    if get_current_settings().api.url is None:
        sys.stderr.write("environment or Prefect profile: PREFECT_API_URL: is not set\n  mend: Set it to your server\n")
        return 2
    sys.stdout.write("\n".join(register()) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
