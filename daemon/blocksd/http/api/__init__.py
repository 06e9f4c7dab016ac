"""Our routes, under `/api`: what Letta's server has no routes for."""
