"""``python -m iir_sdk`` is ``iir-sdk``."""

from iir_sdk.cli.main import main

if __name__ == "__main__":
    main()
