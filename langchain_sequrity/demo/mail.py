"""Mails as files: an outbox is a folder, and a mail in it is what a mail server would be given."""

import re
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path

_ADDRESS = re.compile(r"[A-Za-z0-9._+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,8}")
_LONGEST_SUBJECT = 200


class MailRefused(Exception):
    """A mail that is not written; the text is for the model that sent it."""


@dataclass(frozen=True, slots=True)
class Outbox:
    """A folder that mails are put into.

    Args:
        folder: Where they go; it must exist.
        sender: Who sends them.
        max_bytes: Size of the longest mail's text.

    Attributes:
        sent: The mails so far.
    """

    folder: Path
    sender: str = "agent@example.com"
    max_bytes: int = 1_000_000
    sent: list[Path] = field(default_factory=list, init=False)

    def send(self, to: str, subject: str, body: str) -> Path:
        """Write a mail.

        Args:
            to: One plain address.
            subject: One line.
            body: The text.

        Returns:
            The file.

        Raises:
            MailRefused: If it is not a mail that can be sent.
            OSError: If the folder cannot be written to.
        """
        if not _ADDRESS.fullmatch(to):
            msg = f"{to[:100]!r} is not one plain mail address, such as `someone@example.com`."
            raise MailRefused(msg)
        if not subject.isprintable() or len(subject) > _LONGEST_SUBJECT:
            msg = f"The subject must be one line of at most {_LONGEST_SUBJECT} characters."
            raise MailRefused(msg)
        if len(body.encode()) > self.max_bytes:
            msg = f"The mail is longer than {self.max_bytes} bytes."
            raise MailRefused(msg)
        message = EmailMessage(policy=SMTP)
        message["From"], message["To"], message["Subject"] = self.sender, to, subject
        message.set_content(body)
        path = self._free_path()
        path.write_bytes(message.as_bytes())
        self.sent.append(path)
        return path

    def _free_path(self) -> Path:
        number = 1
        while (path := self.folder.resolve() / f"mail-{number}.eml").exists():
            number += 1
        return path
