"""The process around the core: start and stop, the main loop, threads, signals and the control socket."""
