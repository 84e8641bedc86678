"""The keys of an application: where they come from, which one seals, how a new one takes over."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Final, NoReturn, Self, override

from tokenkeep import keyfile
from tokenkeep.errors import ConfigurationError, UnknownKey
from tokenkeep.ports import Binding, Sealer
from tokenkeep.sealing import RootKey, envelope, key_id_of
from tokenkeep.secret import Secret

KEYS_VARIABLE: Final = "TOKENKEEP_KEYS"
FILE_VARIABLE: Final = "TOKENKEEP_KEY_FILE"

_HEADING: Final = "# tokenkeep: root keys, newest last. Without them no sealed token can be read. Keep a copy apart.\n"


def named_in_environment(environ: Mapping[str, str] | None = None) -> bool:
    """Tell whether the environment names keys, so that `KeyRing.from_env` is the place to get them."""
    return any(_variable(environ, variable) for variable in (KEYS_VARIABLE, FILE_VARIABLE))


def _variable(environ: Mapping[str, str] | None, variable: str) -> Secret:
    """Read a variable; a blank one counts as not set, as compose files leave it."""
    return Secret((os.environ if environ is None else environ).get(variable, "").strip())


def _words(text: Secret) -> list[Secret]:
    return [Secret(word) for word in text.reveal().replace(",", " ").split()]


def _parsed(texts: Sequence[Secret], source: str) -> list[RootKey]:
    keys = []
    for position, text in enumerate(texts, start=1):
        key = RootKey.parse(text)
        if key is None:
            msg = (
                f"key {position} in {source} is malformed, mistyped or not random: "
                "a key reads tkk_<id>_<43 characters>, and `tokenkeep keys new` makes one"
            )
            raise ConfigurationError(msg)
        keys.append(key)
    return keys


class KeyRing(Sealer):
    """Seals under its newest key, opens under any: the port `Sealer`.

    Safe to use from several threads, also while a key is added. `repr` shows ids only; pickling and copying
    raise `TypeError`.
    """

    def __init__(self, keys: Iterable[RootKey]) -> None:
        ordered = list(keys)
        if not ordered:
            msg = "a key ring needs at least one key: make one with KeyRing.generate() or `tokenkeep keys new`"
            raise ConfigurationError(msg)
        self._keys = {key.id: key for key in ordered}
        if len(self._keys) < len(ordered):
            msg = "the key ring names a key twice: remove the repeated line; the newest key stands last"
            raise ConfigurationError(msg)
        self._newest = ordered[-1]
        self._changing = Lock()

    # --- where keys come from

    @classmethod
    def generate(cls) -> Self:
        """Make a ring of one new key. Save it before anything is sealed under it."""
        return cls([RootKey.generate()])

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Self:
        """Read `TOKENKEEP_KEYS` (separated by commas or white space, newest last) or `TOKENKEEP_KEY_FILE`.

        Raises:
            ConfigurationError: both are set, or neither, or what they name is no ring.
        """
        keys, file = _variable(environ, KEYS_VARIABLE), _variable(environ, FILE_VARIABLE)
        if keys and file:
            msg = f"{KEYS_VARIABLE} and {FILE_VARIABLE} are both set: keep one of them"
            raise ConfigurationError(msg)
        if keys:
            return cls(_parsed(_words(keys), KEYS_VARIABLE))
        if file:
            return cls.from_file(file.reveal())
        msg = (
            f"no keys: set {KEYS_VARIABLE} to a key made by `tokenkeep keys new`, "
            f"or {FILE_VARIABLE} to the path of a file with one key a line"
        )
        raise ConfigurationError(msg)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Self:
        """Read one key a line, newest last; `#` begins a comment. Warns when others may read the file.

        Raises:
            ConfigurationError: the file is missing, unreadable, empty or malformed.
        """
        name = Path(path).name
        try:
            lines = keyfile.read_lines(Path(path))
        except OSError as error:
            msg = f"the key file {name} cannot be read: {error.strerror}; check the path, or make it with KeyRing.save"
            raise ConfigurationError(msg) from error
        if not lines:
            msg = f"the key file {name} holds no key: restore it from its copy, or add one with `tokenkeep keys new`"
            raise ConfigurationError(msg)
        return cls(_parsed(lines, f"the key file {name}"))

    @classmethod
    def kept_in(cls, path: str | os.PathLike[str]) -> Self:
        """Read the ring in a file, or make it there with one new key when the file does not exist.

        Of several processes that do so at once one makes it, and all return the same ring.
        """
        target = Path(path)
        if not target.exists():
            with suppress(FileExistsError):
                cls.generate().save(target, replace=False)
        return cls.from_file(target)

    # --- which keys there are

    @property
    @override
    def key_id(self) -> str:
        return self._newest.id

    @property
    @override
    def key_ids(self) -> tuple[str, ...]:
        return tuple(self._keys)

    def add(self) -> str:
        """Make a new key that seals from now on, and return its id. Save the ring before the next seal is stored."""
        key = RootKey.generate()
        with self._changing:
            self._keys = {**self._keys, key.id: key}
            self._newest = key
        return key.id

    def drop(self, key_id: str) -> None:
        """Forget a key. What is still sealed under it can then not be opened.

        Raises:
            UnknownKey: it is not in the ring.
            ConfigurationError: it is the newest, which seals.
        """
        with self._changing:
            self._key(key_id)
            if key_id == self._newest.id:
                msg = f"key {key_id} is the newest and seals: add another key before this one is dropped"
                raise ConfigurationError(msg)
            self._keys = {known: key for known, key in self._keys.items() if known != key_id}

    def save(self, path: str | os.PathLike[str], *, replace: bool = True) -> None:
        """Write the ring to a file of mode 0600, durable when it returns.

        A crash leaves the old file or the new one, never a part. Safe to repeat.

        Raises:
            ConfigurationError: the file cannot be written; the old one is untouched.
            FileExistsError: there is one, and `replace` is false.
        """
        target = Path(path).resolve()
        content = Secret(_HEADING + "".join(f"{key.text.reveal()}\n" for key in self._keys.values()))
        try:
            keyfile.write(target, content, replace=replace)
        except FileExistsError:
            raise
        except OSError as error:
            msg = f"the key file {target.name} cannot be written: {error.strerror}; check the folder and its rights"
            raise ConfigurationError(msg) from error

    # --- what keys do

    @override
    def seal(self, secret: Secret, binding: Binding) -> bytes:
        return self._newest.seal(secret, binding)

    @override
    def open(self, sealed: bytes, binding: Binding) -> Secret:
        whole = envelope(sealed)
        return self._key(key_id_of(whole)).open(whole, binding)

    @override
    def key_id_of(self, sealed: bytes) -> str:
        return key_id_of(envelope(sealed))

    @override
    def check_value(self, key_id: str) -> bytes:
        return self._key(key_id).check_value

    @override
    def fingerprint(self, secret: Secret, key_id: str | None = None) -> bytes:
        return (self._newest if key_id is None else self._key(key_id)).fingerprint(secret)

    def issued_digest(self, token: bytes, key_id: str) -> bytes:
        """Digest an issued token under one key of the ring (HMAC-SHA256, 32 bytes).

        Raises:
            UnknownKey: it is not in the ring.
        """
        return self._key(key_id).issued_digest(token)

    @override
    def trail_proof(self, message: bytes, key_id: str) -> bytes:
        return self._key(key_id).trail_proof(message)

    def _key(self, key_id: str) -> RootKey:
        try:
            return self._keys[key_id]
        except KeyError:
            raise UnknownKey([key_id]) from None

    def __repr__(self) -> str:
        return f"KeyRing({', '.join(self._keys)})"

    def __reduce__(self) -> NoReturn:
        msg = "a KeyRing cannot be pickled or copied: save it to a file and read it with KeyRing.from_file"
        raise TypeError(msg)
