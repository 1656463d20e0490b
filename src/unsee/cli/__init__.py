"""The command line, the only place that knows flags. Nothing heavy is imported until a command runs."""
