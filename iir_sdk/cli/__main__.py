"""``torchrun -m iir_sdk.cli`` runs ``iir-sdk`` in each of its processes."""

from iir_sdk.cli.main import main

if __name__ == "__main__":
    main()
