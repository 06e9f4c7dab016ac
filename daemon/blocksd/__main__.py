"""The command `blocksd`, also as `python -m blocksd`."""

import gc
import signal


def main() -> None:
    """Load the command line, which takes a moment, and run it. Ctrl-C meanwhile ends the process without a word."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from blocksd.cli.main import main as run

    try:
        run()
    finally:
        gc.freeze()  # else the end of Python looks at every object once more, and takes longer than most commands


if __name__ == "__main__":
    main()
