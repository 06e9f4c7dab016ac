"""Reports of a running daemon: events, log, metrics, status, and notifications to systemd."""
