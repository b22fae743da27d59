"""How commands end: one sentence and an exit code for every error.

Exit codes: 0 done; 1 something failed; 2 the caller's mistake, such as bad input; 130 interrupted with Ctrl-C.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

from trainers.execution import StepFailedError, StepInterruptedError

FAILED, CALLERS_MISTAKE, INTERRUPTED = 1, 2, 130
EVERYTHING = "headwater[train,serve]"
EPILOG = (
    "Exit codes: 0 done · 1 something failed · 2 the caller's mistake, such as bad input · 130 interrupted with "
    "Ctrl-C (the same command goes on where it stopped)."
)
_DISK = ("No space left", "File too large", "disk is full", "I/O error")
"""What libraries that have errors of their own say when a file cannot be written."""
_MEND_DISK = "free space, mend its permissions, or take another --run"
_OURS = tuple(str(Path(__file__).parents[2] / package) for package in ("trainers", "feature_repo", "serving"))


@contextmanager
def exit_codes(*, debug: bool, as_json: bool = False, resume: str = "") -> Iterator[None]:
    """Turn what a command raises into a sentence on standard error and an exit code.

    Args:
        debug: also print the traceback.
        as_json: also print the sentence as JSON on standard output.
        resume: shell line that goes on where Ctrl-C stopped it.
    """
    try:
        yield
    except typer.Exit:
        raise
    except KeyboardInterrupt as error:
        _end(_interruption(error, resume), INTERRUPTED, as_json=as_json)
    except Exception as error:
        if debug:
            typer.echo(traceback.format_exc(), err=True)
        _end(sentence(error), code(error), as_json=as_json)


def code(error: Exception) -> int:
    """Exit code for an error: 2 when the caller can mend it, else 1."""
    cause = _cause(error)
    if isinstance(cause, FileNotFoundError) or type(cause).__name__ == "ValidationError":
        return CALLERS_MISTAKE
    return CALLERS_MISTAKE if isinstance(cause, ValueError) and _raised_by_us(cause) else FAILED


def sentence(error: Exception) -> str:
    """What a person should read about an error: our own words as they are, others with their kind."""
    cause = _cause(error)
    step = f"step {error.step}: " if isinstance(error, StepFailedError) else ""
    text = _validation_text(cause) if type(cause).__name__ == "ValidationError" else str(cause)
    in_our_words = isinstance(cause, ValueError | RuntimeError | ArithmeticError | OSError) and _raised_by_us(cause)
    if code(error) == CALLERS_MISTAKE or in_our_words:
        return f"error: {step}{text}"
    if isinstance(cause, ModuleNotFoundError):
        return f"error: {step}{cause.name} must be installed ({cause}); pip install '{EVERYTHING}'"
    if isinstance(cause, OSError) and cause.strerror:
        return f"error: {step}{_unusable(cause)}"
    if any(words in text for words in _DISK):
        return f"error: {step}the disk must be usable (got: {text}); {_MEND_DISK}"
    kind = type(cause).__name__
    return f"error: {step}{kind}{': ' if text else ''}{text}; run again with --debug for the traceback"


def _unusable(error: OSError) -> str:
    place = f"{error.filename} must be usable" if error.filename else "the disk must be usable"
    return f"{place} (got: {error.strerror}); {_MEND_DISK}"


def _cause(error: Exception) -> BaseException:
    return error.__cause__ if isinstance(error, StepFailedError) and error.__cause__ is not None else error


def _raised_by_us(error: BaseException) -> bool:
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and frames[-1].filename.startswith(_OURS)


def _validation_text(error: Any) -> str:
    """First complaint of pydantic, with the key and the value that it is about."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    return f"{error.title}: {key or 'value'}: {first['msg']} (got {first['input']!r}); correct it and run again"


def _interruption(error: KeyboardInterrupt, resume: str) -> str:
    step = f" in step {error.step}" if isinstance(error, StepInterruptedError) else ""
    return f"interrupted{step}" + (f"; `{resume}` goes on from there" if resume else "")


def _end(text: str, exit_code: int, *, as_json: bool) -> None:
    typer.echo(text, err=True)
    if as_json:
        typer.echo(json.dumps({"error": text.removeprefix("error: "), "exit_code": exit_code}))
    raise typer.Exit(exit_code)
