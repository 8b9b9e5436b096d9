"""The exception tree: every failure that a user can meet, with its exit code.

`magpie-ray` turns each into one message and the exit code. Invariants: errors of libraries are translated
where they are raised (`raise ... from exc`); every error carries a single message, so that it survives
pickling between a Ray actor and the driver.
"""


class MagpieError(Exception):
    """Base of all errors of this project. The command line ends with `exit_code`."""

    exit_code = 1


class ConfigError(MagpieError, ValueError):
    """The config is wrong: names the key, the value and what would be right."""

    exit_code = 2


class ModelError(MagpieError, ValueError):
    """There is no such model, or this machine can't read it."""

    exit_code = 2


class FormatError(MagpieError, ValueError):
    """No chat format can be derived from the tokenizer, or the format lacks a feature of the config."""

    exit_code = 2


class PreflightError(MagpieError):
    """The job can't start: the output can't be written, or the cluster can never hold an actor."""

    exit_code = 2


class SourceError(PreflightError):
    """A file or row of a source can't be used. Names it, with the remedy. Another try repeats it."""


class BuildNotFoundError(PreflightError):
    """There is no build at the output."""


class BuildMismatchError(PreflightError):
    """The output already holds a build of another config or grid. Names the keys that differ."""


class BuildExistsError(PreflightError):
    """The output already holds a build, and the user asked to fail then (--if-exists fail)."""


class MachineLimitError(MagpieError):
    """This process or machine has run out of something: open files, threads, room for temporary files."""


class StorageError(MagpieError):
    """An object could not be read or written, after retries."""


class AlreadyExistsError(StorageError):
    """Exclusive creation found an object under that name: another writer was first."""


class BlockedError(StorageError):
    """Something that is no file stands under the name of an object. It has to be moved away."""


class NoRoomError(StorageError):
    """The disk is full, or a quota is used up. Small objects may still have room."""


class ObjectNotFoundError(StorageError):
    """There is no object under that key."""


class CorruptBuildError(MagpieError):
    """A file of the build is foreign, unreadable or contradicts another. Names it; deletes nothing."""


class BuildReplacedError(CorruptBuildError):
    """Another build has begun at the output of a run that is at work, which must not write there any more."""


class ReportError(MagpieError):
    """The report can't be made. The build is unchanged."""


class QueryError(MagpieError):
    """A query of the user needs more memory or disk than it was given."""


class HubError(MagpieError):
    """The Hugging Face hub could not be reached, or refused a request. Files committed there stay."""


class EngineError(MagpieError):
    """The engine could not start, died, or refused a request."""


class RuleError(MagpieError):
    """A rule of the user failed, or returned something that is no reason. Names the rule and the message."""


class RowExhaustedError(MagpieError):
    """A row used up its attempts, or bad luck does not explain its rejections. Gives reasons and remedies."""


class AcceptRateError(MagpieError):
    """A prompt group is accepted too seldom. Names it, and gives the reasons, with examples and remedies."""


class GenerationFailedError(MagpieError):
    """The job gave up because actors or partitions failed too often. Holds the actor's error."""


class ClusterStartError(MagpieError):
    """A local Ray cluster did not start on this machine."""


class ClusterLostError(MagpieError):
    """The Ray cluster is gone. Committed rows stay; the same command resumes the build on another cluster."""


class InterruptedJobError(MagpieError):
    """The job was told to stop. Committed rows stay; the same command resumes the build."""

    exit_code = 3
