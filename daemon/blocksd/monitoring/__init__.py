"""What a running daemon reports: events, log, metrics, status and systemd notifications."""
