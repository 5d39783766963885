# SPDX-License-Identifier: LGPL-2.1-or-later
"""select and deselect: the edit of the host's settings file, with a backup.

The boot scripts take the program to start from XENSTORED= in that file.  `select` adds such a
line and switches others off; `deselect` undoes exactly that, and keeps what others changed in
the file meanwhile.
"""

from __future__ import annotations

from pyxsd.setup import boot, settings
from pyxsd.setup.boot import NextBoot
from pyxsd.setup.tree import Tree

#: Appended to the settings file's name for the backup.
BACKUP = ".before-pyxsd"


class Refused(Exception):
    """Nothing was changed; the text says why, and what to do."""


def select(tree: Tree, program: str, file: str = "", force: bool = False) -> list[str]:
    """Lets the next boot start `program`; what was done, in sentences.  Refused.

    file: this settings file, where the one that boot.look() finds is not meant.  A file that no
    boot script of the host reads is refused, unless `force` is set.
    """
    if file and not force and not boot.is_read(tree, file):
        raise Refused(
            f"no boot script of this host reads {file} ({_found(tree)}); --force writes "
            "it all the same"
        )
    now = boot.look(tree, file)
    if now.program == program and now.line:
        return [f"Nothing to do: {now.origin} names {program} already."]
    _must_be_editable(now)
    if not tree.is_program(program):
        raise Refused(
            f"{program} is missing or cannot be executed; with it selected, the next "
            "boot would have no xenstored"
        )
    before = now.text
    done = []
    backed_up = before is not None and settings.MARK not in before.split("\n")
    try:
        if backed_up:
            tree.replace(now.file + BACKUP, before or "")
            done.append(f"Copied {now.file} to {now.file}{BACKUP}.")
        tree.replace(now.file, settings.selected(before or "", program))
    except OSError as error:
        raise Refused(_cannot_write(now.file, error)) from error
    done.append(
        f"{'Changed' if before is not None else 'Made'} {now.file}: {settings.VARIABLE}={program}."
    )
    was = f" instead of {now.program}" if now.program and now.program != program else ""
    done.append(
        _unread(tree, file)
        or f"The next boot starts {program}{was}; a xenstored that runs now goes on."
    )
    return done


def deselect(tree: Tree, programs: tuple[str, ...], file: str = "") -> list[str]:
    """Takes `programs` out of the settings file; what was done, in sentences.  Refused."""
    now = boot.look(tree, file)
    if now.text is None or not now.file:
        if now.fault:
            raise Refused(now.fault)
        what = f"{now.file} is not there" if now.file else f"{now.origin} names the program itself"
        return [f"Nothing to do: {what}."]
    backup = _backup(tree, now.file)
    if backup is not None and any(
        now.text == settings.selected(backup, program) for program in programs
    ):
        after = backup
    else:
        after = settings.deselected(now.text, programs)
    if after == now.text:
        return [f"Nothing to do: {now.file} does not name pyxsd."]
    try:
        if after.strip() or backup is not None:  # select did not make the file
            tree.replace(now.file, after)
            done = [
                f"Changed {now.file}: "
                + (
                    "the line that names pyxsd is switched off; select had not written it."
                    if after.count(settings.OUT) > now.text.count(settings.OUT)
                    else f"{settings.VARIABLE} is as it was before."
                )
            ]
        else:
            tree.remove(now.file)
            done = [f"Removed {now.file}, which held nothing else."]
        if backup is not None and backup == after:
            tree.remove(now.file + BACKUP)
            done.append(f"Removed {now.file}{BACKUP}, which is the same.")
        elif backup is not None:
            done.append(
                f"{now.file} was changed by others since; how it was before is in "
                f"{now.file}{BACKUP}."
            )
    except OSError as error:
        raise Refused(_cannot_write(now.file, error)) from error
    then = boot.look(tree, file)
    unread = _unread(tree, file)
    if unread:
        done.append(unread)
    elif then.fault:
        done.append(f"Careful, the next boot may start no xenstored: {then.fault}.")
    else:
        done.append(f"The next boot starts {then.program}; a xenstored that runs now goes on.")
    return done


def _unread(tree: Tree, file: str) -> str:
    """The sentence about a file of the caller's choice that no boot script reads, else ""."""
    if not file or boot.is_read(tree, file):
        return ""
    return f"No boot script of this host reads {file}: the next boot is as it was before."


def _found(tree: Tree) -> str:
    """What boot.look() finds without being told a file, in words."""
    now = boot.look(tree)
    return f"the one that is read is {now.file}" if now.file else now.fault or now.origin


def _must_be_editable(now: NextBoot) -> None:
    if now.editable:
        return
    if now.fault:
        raise Refused(now.fault + ("; mend the file by hand first" if now.file else ""))
    raise Refused(f"{now.origin} names the program itself: change it there")


def _backup(tree: Tree, file: str) -> str | None:
    try:
        return tree.read(file + BACKUP)
    except OSError:
        return None


def _cannot_write(file: str, error: OSError) -> str:
    root = "; run this as root" if isinstance(error, PermissionError) else ""
    return f"cannot write {file}: {error.strerror}; nothing was changed{root}"
