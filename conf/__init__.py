"""The YAML groups; installed as the package bnexp.conf, so that a wheel carries them."""
