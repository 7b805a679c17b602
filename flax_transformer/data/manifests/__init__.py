"""Freight manifests: e-mails in free text and the JSON record of each."""
