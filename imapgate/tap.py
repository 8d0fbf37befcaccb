"""``twistd imapgate``: its options, and the service they make."""

from __future__ import annotations

import time

from twisted.application.service import IService, MultiService
from twisted.python import usage

from imapgate.config import from_options, load
from imapgate.config.types import Configuration
from imapgate.demo import LISTEN, DemoService
from imapgate.errors import ConfigurationError
from imapgate.service import GateService, refuse_root


class Options(usage.Options):
    """The options of ``twistd imapgate``."""

    synopsis = "[--demo | --config FILE | --upstream ENDPOINT --listen ENDPOINT]"
    longdesc = "A pooling IMAP4 proxy and gateway. 'imapgate --help' lists the commands for operators."
    optFlags = [
        ["demo", None, "Serve an embedded mailbox on 127.0.0.1:1143, user demo, password demo."],
        ["takeover", None, "Take the listening sockets over from the gate that runs with the same control socket."],
    ]
    optParameters = [
        ["config", "c", None, "The configuration, a TOML file."],
        ["upstream", None, None, "The server behind the gate, a client endpoint such as tls:imap.example.org:993."],
        ["listen", None, None, "Where clients come in, a server endpoint such as tcp:1143:interface=127.0.0.1."],
        ["pool-mode", None, None, "How long an upstream connection is one client's: session, mailbox or shared."],
        ["audit-log", None, None, "Write the audit trail to this file."],
        ["control", None, None, "The path of the control socket."],
    ]

    def __init__(self) -> None:
        super().__init__()
        self["plugin"] = []

    def opt_plugin(self, name: str) -> None:
        """Use this plugin; may be given several times."""
        self["plugin"].append(name)

    def postOptions(self) -> None:
        """See that one way to configure the gate was chosen, and only one."""
        ways = [bool(self["demo"]), self["config"] is not None, self["upstream"] is not None]
        if sum(ways) != 1:
            raise usage.UsageError("imapgate: give one of --demo, --config FILE, or --upstream with --listen")
        if (self["upstream"] is None) != (self["listen"] is None):
            raise usage.UsageError("imapgate: --upstream and --listen go together")
        if self["config"] is not None:
            for option in ("pool-mode", "audit-log", "control", "plugin"):
                if self[option]:
                    raise usage.UsageError(f"imapgate: --{option} goes without --config: write it into the file")

    def configuration(self) -> Configuration:
        """The configuration that the options name or describe.

        :raise ConfigurationError: it cannot be used.
        """
        if self["config"] is not None:
            return load(self["config"])
        return self.described(self["upstream"], self["listen"])

    def described(self, upstream: str, listen: str) -> Configuration:
        """The configuration of a gate between these two that the other options describe.

        :raise ConfigurationError: it cannot be used.
        """
        return from_options(
            upstream,
            listen,
            pool_mode=self["pool-mode"] or "session",
            audit_log=self["audit-log"],
            plugins=self["plugin"],
            control=self["control"],
        )


def makeService(options: Options) -> IService:
    """Return the service that these options ask for; what is wrong with them goes to the person who gave them."""
    from twisted.internet import reactor

    reactor.seconds = time.monotonic  # type: ignore[method-assign]  # Twisted takes the wall clock, which jumps (F20)
    together = MultiService()
    demo = None
    try:
        if options["demo"]:
            demo = DemoService()
            configuration = options.described(demo.upstream, LISTEN)
        else:
            configuration = options.configuration()
        parent: dict[str, object] = options.parent or {}
        refused = refuse_root(configuration, parent.get("uid"))
        if refused:
            raise ConfigurationError([refused])
        GateService(reactor, configuration, takeover=bool(options["takeover"])).setServiceParent(together)
        if demo is not None:
            demo.setServiceParent(together)
    except ConfigurationError as error:
        raise SystemExit("\n".join(f"imapgate: {problem}" for problem in error.problems)) from None
    return together
