"""The version of this library is defined here."""

VERSION = "0.1.0"
