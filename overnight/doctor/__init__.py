"""What is wrong with a route, found out by asking: the host, the provider, the agent, one factor at a time."""
