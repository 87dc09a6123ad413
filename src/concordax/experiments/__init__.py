"""Published experiments as data: each module's `run` turns a configuration into a `Record`; `plots` draws it."""
