"""The exception tree: every failure a user can meet, and the exit code each one ends in.

Owns: the classes that `magpie-ray` turns into one clear message and an exit code. Errors of libraries are
translated at the edge (`raise ... from exc`). All of them carry a single message, so that they survive
pickling between a Ray actor and the driver.
"""


class MagpieError(Exception):
    """Base of all errors of this project. `exit_code` is what the command line ends with."""

    exit_code = 1


class ConfigError(MagpieError, ValueError):
    """The config is wrong: names the key, the value and what would be right."""

    exit_code = 2


class ModelError(MagpieError, ValueError):
    """There is no such model, or this machine can't read it."""

    exit_code = 2


class FormatError(MagpieError, ValueError):
    """No chat format can be derived from the model's tokenizer, or it does not take what was asked of it."""

    exit_code = 2


class PreflightError(MagpieError):
    """The job can't start: the output can't be written, or the cluster can never hold an actor."""

    exit_code = 2


class BuildMismatchError(PreflightError):
    """The output already holds a build of another config or grid. Names the keys that differ."""


class BuildExistsError(PreflightError):
    """The output already holds a build, and the user wants a new one or none (--if-exists fail)."""


class StorageError(MagpieError):
    """An object could not be read or written, after retries."""


class AlreadyExistsError(StorageError):
    """Exclusive creation found an object under that name: somebody else was first."""


class ObjectNotFoundError(StorageError):
    """There is no object under that key."""


class CorruptBuildError(MagpieError):
    """A file of the build is foreign, unreadable, or contradicts another. It is named; nothing is deleted."""


class ReportError(MagpieError):
    """The report can't be made. The build is as it is."""


class HubError(MagpieError):
    """The Hugging Face hub could not be reached, or refused. What is committed there stays."""


class EngineError(MagpieError):
    """The engine could not start, died, or refused a request."""


class RuleError(MagpieError):
    """A rule of the user's own failed, or returned what is no reason. Names the rule and the message."""


class RowExhaustedError(MagpieError):
    """A row used up its attempts. Says for which reasons, with examples, and what to try."""


class AcceptRateError(MagpieError):
    """Too few of the first attempts were accepted. Says for which reasons, with examples, and what to try."""


class GenerationFailedError(MagpieError):
    """The job gave up: actors or partitions failed too often. Holds the cause from the actor."""


class ClusterLostError(MagpieError):
    """The Ray cluster is gone. What is committed stays; the same command resumes on another one."""


class InterruptedJobError(MagpieError):
    """The job was told to stop. What is committed stays; the same command resumes."""

    exit_code = 3
