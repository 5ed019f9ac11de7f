"""The YAML groups of bnexp-descend, which training does not see; it shares the other groups."""
