"""``iir-sdk`` as a user types it."""

from __future__ import annotations

from click.testing import CliRunner

from iir_sdk.cli.main import main


def run(*words: object) -> tuple[int, str]:
    """Exit code, and what is printed on both streams; errors that no command turns into one line are raised."""
    result = CliRunner().invoke(main, [str(word) for word in words])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def output_of(*words: object, code: int = 0) -> str:
    """What is printed by a command that must end with an exit code."""
    ended_with, output = run(*words)
    assert ended_with == code, output
    return output
