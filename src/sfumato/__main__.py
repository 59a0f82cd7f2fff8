"""`python -m sfumato`."""

from sfumato.cli import script

script()
