"""Nobody of one domain can delete a folder."""

from imapgate.plugins.api import Command, Interests, Options, Plugin, Reject, Session, Verdict


class KeepFolders(Plugin):
    """Option: ``domain``."""

    interests = Interests(verbs=frozenset(["DELETE"]))

    def __init__(self, options: Options) -> None:
        self._domain = options.text("domain").casefold()
        if not self._domain.isascii():
            raise options.fault("domain", "expected ASCII, since clients are told it")

    def command(self, session: Session, command: Command) -> Verdict | None:
        """Refuse DELETE, the one command that this plugin is asked about."""
        if session.user.casefold().endswith(f"@{self._domain}"):
            return Reject("NOPERM", f"Folders of {self._domain} stay", rule="delete")
        return None
