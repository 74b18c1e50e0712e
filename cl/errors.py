"""The few exceptions: each says what was found, what was expected and what to do."""


class EvergreenError(Exception):
    """Something the user can act on; the command line prints it as one sentence and exits with code 2."""


class ConfigError(EvergreenError):
    """A setting is misspelt, out of range, or asks for something that does not exist."""


class DataError(EvergreenError):
    """A file, table or stream cannot be used as it is."""


class ModelError(EvergreenError):
    """A model cannot be found, loaded, or used in the way a method asks."""


class MethodError(EvergreenError):
    """A method cannot use what a session offers."""


class LearningError(EvergreenError):
    """Learning went wrong in a way that must stop it, such as a loss that is not finite."""


class StoreError(EvergreenError):
    """A place results are kept in cannot be read or written."""


class PrunedError(StoreError):
    """A learned state is whole but for its weights, which somebody had dropped to make room."""


class NewerError(EvergreenError):
    """What is kept was written by a later release: whole, not for this one to read, and not to be made again over it."""


def again(error: BaseException) -> bool:
    """Whether the same command may go through the next time with settings, data and model as they are.

    >>> again(ConfigError("misspelt")), again(StoreError("the disk is full")), again(KeyboardInterrupt())
    (False, True, True)
    """
    return isinstance(error, StoreError) or not isinstance(error, EvergreenError)
