"""``[upstream.NAME.master]``: with what the gate logs in for a user whom it has verified itself, read and checked.

Knows which keys belong to which method.
"""

from __future__ import annotations

from pathlib import Path

from imapgate.config.files import file_faults, private_faults
from imapgate.config.secrets import take_secret
from imapgate.config.table import Table, choice, of_text, path_in
from imapgate.config.types import Master, MasterMethod
from imapgate.config.values import Unfit

KEYS = ("user", "password_file", "password_env", "separator", "map")
BY_MASTER_USER = {"user", "password_file", "password_env"}
FITTING = {
    MasterMethod.AUTHORISATION: BY_MASTER_USER,
    MasterMethod.DOVECOT: BY_MASTER_USER | {"separator"},
    MasterMethod.MAP: {"map"},
}


def read_master(table: Table | None, base: Path) -> Master | None:
    """Read the table; None where there is none, or one without a method."""
    if table is None:
        return None
    methods = {method.value: method for method in MasterMethod}
    method = table.required("method", choice(methods), 'one of "authorisation", "dovecot", "map"')
    user = table.take("user", of_text(_user), "")
    password = take_secret(table, "password_file", "password_env", base)
    separator = table.take("separator", of_text(_separator), "*")
    by_user = table.take("map", path_in(base), None)
    table.finish()
    if method is None:
        return None
    for key in KEYS:
        if key in table and key not in FITTING[method]:
            fitting = " or ".join(f'"{other}"' for other, keys in FITTING.items() if key in keys)
            table.add(key, f'given with method = "{method}"; expected it only with {fitting}')
    if method is MasterMethod.MAP:
        if "map" not in table:
            table.add("map", 'missing; expected the path of a file of "user:password" lines')
        for fault in file_faults(by_user) or private_faults(by_user) if by_user else []:
            table.add("map", fault)
        return Master(method, map=by_user)
    if "user" not in table:
        table.add("user", "missing; expected the name of the master user")
    if "password_file" not in table and "password_env" not in table:
        table.add("", "no password; expected password_file or password_env")
    if method is MasterMethod.DOVECOT and separator in user:
        table.add("user", f'expected a name without "{separator}", which is the separator')
    return Master(method, user, password, separator)


def _user(value: str) -> str:
    if " " in value:
        raise Unfit("a name without spaces")
    return value


def _separator(value: str) -> str:
    if len(value) != 1 or not value.isascii() or value.isalnum() or value in " \"'\\":
        raise Unfit('one sign that no user name has, such as "*"')
    return value
