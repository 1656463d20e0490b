"""What each command does from start to end: run folders, locks, resume, records."""
