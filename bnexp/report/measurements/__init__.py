"""What the probes of a comparison's runs show: numbers beside theory, sentences, and what to draw."""
