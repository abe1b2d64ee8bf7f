"""From what was seen of a guest to alerts, from alerts to mails, from mails to somebody's mailbox."""
