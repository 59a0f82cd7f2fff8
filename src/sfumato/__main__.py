"""`python -m sfumato`."""

from sfumato.cli import script

if __name__ == "__main__":
    script()
