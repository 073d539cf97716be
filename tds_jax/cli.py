"""What all doors share: parse, resolve, run, and one clear line when the user can fix it."""

import contextlib
import difflib
import errno
import io
import os
import re
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from absl import flags
from absl import logging as absl_logging

from tds_jax import config as configuration
from tds_jax import presets
from tds_jax.budget import heap
from tds_jax.config import Config
from tds_jax.data.drive import DRIVE_ERRORS, TOO_MANY
from tds_jax.engine import processes
from tds_jax.engine.peers import Left
from tds_jax.engine.stopping import INTERRUPTED, StopError, StopSignal
from tds_jax.errors import UserError
from tds_jax.version import __version__

USER_ERROR = 2
CONFIG = "File with get_config(), or a name that python -m tds_jax lists."  # help of --config
TERMINATED = 143  # as the shell says of SIGTERM
# Of a place that the user has named and that cannot be read or written.
PLACE_ERRORS = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.EISDIR, errno.ENOTDIR, errno.EEXIST),
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENAMETOOLONG),
}
# What absl and ml_collections say of a value, and what it should have been.
KINDS = {
    "invalid literal for int()": "a whole number",
    "could not convert string to float": "a number",
    "Non-boolean": "True or False",
    "as tuple": "a tuple, such as '(8, 8)'",
    "as a ConfigDict": "it with the name of one of its settings",
}


def launch(
    main: Callable[[], None],
    define: Callable[[], None] | None = None,
    words: list[str] | None = None,
) -> NoReturn:
    """Parses the command line, runs main and exits: 0 done, 2 the user's input, 1 anything else.

    130 after Ctrl-C, 143 after SIGTERM; but `train`, which then saves and is meant to go on, ends
    with 0 after the latter.

    define: defines flags that depend on others. words: gets what of the command line is no flag;
    None: that is a mistake. The program may start anew here, so doors import
    what is slow, jax above all, inside functions; --help is quick for it, too.
    """
    absl_logging.set_verbosity(absl_logging.WARNING)
    program = sys.modules["__main__"].__spec__
    if program and program.name.startswith("tds_jax."):  # not a test that calls us
        heap.use_huge_pages()
    heap.limit_arenas()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name may hold what its encoding has not
            stream.reconfigure(errors="backslashreplace")
    try:
        if define:
            define()
        _parse(sys.argv, words)
        with StopSignal(after_sigterm=TERMINATED) as stop, stop.raising():
            if "coordinator" in flags.FLAGS:
                given = flags.FLAGS
                processes.start(given.coordinator, given.processes, given.process)
            main()
            processes.leave(Left(0, "done"))
    except StopError as stopped:
        status = INTERRUPTED if str(stopped) == signal.SIGINT.name else TERMINATED
        processes.leave(Left(status, "stopped", str(stopped)))
        leave(status)
    except UserError as error:
        _complain(str(error))
    except KeyboardInterrupt:
        leave(INTERRUPTED)
    except BrokenPipeError:  # the reader of our output has gone (e.g. `| head`)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        if error.errno in DRIVE_ERRORS:
            remedy = "give the same command again once it can be read, or do without it"
            if error.errno in TOO_MANY:
                remedy = "raise the limit (ulimit -n 4096), or lower data.max_open_files"
            _complain(f"{error.filename or 'a file'}: {error.strerror}; {remedy}")
        if error.errno not in PLACE_ERRORS or not error.filename:
            _fail(error)
        _complain(f"{error.filename}: {error.strerror}; name another place or make room for it")
    except Exception as error:
        _fail(error)
    sys.exit(0)


def define_processes() -> None:
    """Flags of a door that several processes may open together, see docs/scale.md."""
    flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, where all processes meet.")
    flags.DEFINE_integer("processes", None, "How many processes there are, with --coordinator.")
    flags.DEFINE_integer("process", None, "The number of this one, from 0, with --coordinator.")
    _show_in_help("coordinator", "processes", "process")


def define_overwrite(what: str) -> None:
    """The flag without which a door takes away no file that is there, see `require_writable`."""
    flags.DEFINE_bool("overwrite", False, f"Replace {what} that is there already.")
    _show_in_help("overwrite")


def _show_in_help(*names: str) -> None:
    """--help shows a door's own flags: these, which are defined here, are taken for such."""
    for name in names:
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[name])


def leave(status: int) -> NoReturn:
    """Ends a program that was stopped, all its files closed.

    Python's own end would wait for threads that still compile, and then crash in some.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _parse(argv: list[str], words: list[str] | None = None) -> None:
    if {"-h", "--help", "-help"} & set(argv):
        print(sys.modules["__main__"].__doc__ or "", flags.FLAGS.main_module_help(), sep="\n")
        if "config" in flags.FLAGS:
            print(f"Settings look like --config.optim.steps=2000; all are in {presets.FOLDER}:")
            print("base.py (engine), default.py, forecast_soil_moisture.py, voxel_base.py (tasks).")
        sys.exit(0)
    if "--version" in argv:
        print(f"tds_jax {__version__}")
        sys.exit(0)
    try:
        rest = _read_flags(argv)
    # A config file is a program, in which anything may go wrong.
    except Exception as error:
        raise UserError(_flag_error(error, argv)) from error
    if words is not None:
        words += rest[1:]
    elif len(rest) > 1:
        raise UserError(f"{rest[1]!r} is not a flag; settings look like --config.optim.steps=100")


def _read_flags(argv: list[str]) -> list[str]:
    """Sets the flags of a command line; the words that are no flags, its own name first."""
    found = last_of_each(presets.files_in_place_of_names(argv))
    with contextlib.nullcontext() if found == last_of_each(argv) else presets.importable_first():
        rest = flags.FLAGS(found)
        if "config" in flags.FLAGS:
            flags.FLAGS.config.to_dict()  # a file that was not found says so when it is read
    return rest


def last_of_each(argv: list[str]) -> list[str]:
    """A command line in which a setting that is given again is what it was given last.

    Tuples would be joined otherwise.
    """
    found: dict[str, list[str]] = {}
    waiting = ""  # for its value, the next word
    for place, word in enumerate(argv):
        if not word.startswith("-"):
            found.setdefault(waiting or str(place), []).append(word)
            waiting = ""
            continue
        name, equals, _ = word.lstrip("-").partition("=")
        key = name if name.startswith("config.") else str(place)
        found.pop(key, None)
        found[key] = [word]
        waiting = "" if equals else key
    return [word for words in found.values() for word in words]


def _flag_error(error: Exception, argv: list[str]) -> str:
    while isinstance(error.args[0] if error.args else None, Exception):
        error = error.args[0]  # ml_collections wraps a KeyError into an AttributeError
    text = str(error.args[0] if error.args else error)
    if isinstance(error, flags.Error):
        if isinstance(error, flags.UnrecognizedFlagError):
            return f"--{error.flagname} is not a flag; {_meant(error.flagname)} --help"
        if missing := re.match(r"flag (--\w+)=None: .* must have a value", text):
            return f"{missing[1]} is missing; give it, see --help"
        if group := re.match(r"Flag (--config[\w.]*) is provided after", text):
            given = next(a for a in argv if a.lstrip("-").startswith(f"{group[1][2:]}="))
            return f"{given} has the wrong type; use it with the name of one of its settings"
        if wrong := re.match(r"flag (--[^=]+=.*?): ", text):
            for sign, kind in KINDS.items():
                if sign in text:
                    return f"{wrong[1]} has the wrong type; use {kind}"
        return f"{text}; see --help and configs/base.py"
    if unknown := re.match(r"'(\w+)'", text):  # a KeyError of ml_collections, its name quoted
        similar = re.search(r'Did you mean "(\w+)"', text)
        for argument in argv:
            if re.match(rf"--?config\.([\w.]+\.)?{unknown[1]}\b", argument):
                hint = f"did you mean {similar[1]}? See" if similar else "see"
                return f"{argument.split('=')[0]} is not a setting; {hint} configs/base.py"
    last = text.strip().splitlines()[-1].strip() if text.strip() else ""
    reason = f"{type(error).__name__}: {last}"
    path = _config_path(argv)
    if not Path(path).is_file() and (name := Path(path).stem) in presets.names():
        return f"--config={path} is not there; --config={name} is the one that tds_jax brings"
    hint = "" if Path(path).is_file() else "; python -m tds_jax names the configs it brings"
    return f"--config={path} cannot be loaded ({reason}); check the path or the file{hint}"


def _complain(text: str) -> NoReturn:
    words = " ".join(text.split())
    print(f"error: {words}", file=sys.stderr)
    _end_beside_others(USER_ERROR, words)
    sys.exit(USER_ERROR)


def _fail(error: Exception) -> NoReturn:
    """Of an error that is not the user's."""
    if processes.several():
        traceback.print_exception(error)
    _end_beside_others(1, f"{type(error).__name__}: {error}")
    raise error


def _end_beside_others(status: int, words: str) -> None:
    """Ends one of several processes at once: Python's own end would wait for the others, in JAX."""
    if processes.several():
        processes.leave(Left(status, words))
        leave(status)


def resolve(values: Mapping[str, Any]) -> Config:
    """`checked`; matmul precision is set for it, too, for as long as the process lives."""
    from tds_jax.nn.precision import set_matmul_precision  # imports jax, see `checked`

    config = checked(values)
    set_matmul_precision(config.memory.matmul_precision)
    return config


def checked(values: Mapping[str, Any]) -> Config:
    """The checked Config of nested values; the allocator and the compiler are set for it.

    Both read their settings when jax first touches a device; nothing before this has.
    """
    # These import jax: not before a data worker knows that it is one.
    from tds_jax import tasks
    from tds_jax.engine import compilation

    if "task" not in values:
        raise UserError("task is missing from the config; see configs/default.py")
    config = configuration.resolve(values, tasks.groups(values["task"]))
    _set_allocator(config.memory.preallocate, config.memory.fraction)
    compilation.tell_compiler(config.memory.deterministic)
    return config


def _set_allocator(preallocate: bool, fraction: float) -> None:
    """How XLA takes GPU memory. A variable the user has set in the environment wins."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", str(preallocate).lower())
    # jax refuses to start when both the old and the new name are set.
    if fraction and "XLA_PYTHON_CLIENT_MEM_FRACTION" not in os.environ:
        os.environ.setdefault("XLA_CLIENT_MEM_FRACTION", f"{fraction:.3f}")


def default_workdir() -> Path:
    """runs/<config file's name>, for a command line that names none."""
    return Path("runs") / Path(_config_path(sys.argv)).stem


def _meant(word: str) -> str:
    """The flags and settings of this door that a word may stand for, and where all of them are."""
    names = [flag.name for flag in flags.FLAGS.get_key_flags_for_module(sys.argv[0])]
    known = {name: [f"--{name}"] for name in names}  # what may be written -> flags
    for group, values in _loaded_config().items():
        for name in values if isinstance(values, dict) else ():
            for written in (name, f"{group}.{name}"):
                known.setdefault(written, []).append(f"--config.{group}.{name}")
        known.setdefault(group, []).append(f"--config.{group}" + ".NAME" * isinstance(values, dict))
    near = [word] if word in known else difflib.get_close_matches(word, known, 1, cutoff=0.7)
    meant = [flag for each in near for flag in known[each]]
    return f"did you mean {' or '.join(meant)}? See" if meant else "see"


def _loaded_config() -> dict[str, Any]:
    """Nested values of --config; none where it is not given, or not there."""
    config = flags.FLAGS["config"].value if "config" in flags.FLAGS else None
    try:
        return config.to_dict() if config is not None else {}
    except OSError:  # ml_collections says now that it could not load the file
        return {}


def _config_path(argv: list[str]) -> str:
    """The file named by --config=FILE[:ARGUMENT] or --config FILE; '' when none is."""
    return (given(argv, "config") or "").split(":")[0]


def given(argv: list[str], flag: str) -> str | None:
    """The value of --flag=VALUE or --flag VALUE before flags are parsed; None if there is none."""
    for argument, following in zip(argv, [*argv[1:], ""], strict=True):
        if found := re.fullmatch(rf"--?{flag}(=(.*))?", argument):
            return found[2] if found[1] else following
    return None


def require_writable(flag: str, path: str | None) -> None:
    """Raises UserError if a file cannot be written there at the end; None passes.

    What is there already is replaced with --overwrite alone, of doors that have that flag.
    """
    if path and Path(path).is_dir():
        raise UserError(f"{flag}={path} is a folder; name a file in it")
    folder = Path(path or "").absolute().parent
    if path and not folder.is_dir():
        raise UserError(f"{flag}={path}: its folder does not exist; create it or name another")
    if path:
        try:
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            words = f"{flag}={path}: {folder} cannot be written ({error.strerror})"
            raise UserError(f"{words}; name another place") from error
    if path and os.path.lexists(path) and not flags.FLAGS.overwrite:
        remedy = "is there already; name another file, or replace it with --overwrite"
        raise UserError(f"{flag}={path} {remedy}")
