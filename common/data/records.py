"""Results with names, for readers who write `result.z` and for those who write `result["z"]`."""


class Record(dict):
    """A dict whose items can also be read and set as attributes; a dict's own methods keep their names."""

    def __getattr__(self, name: str) -> object:
        if name not in self:
            raise AttributeError(f"no {name}: there are {', '.join(map(str, self))}")
        return self[name]

    def __setattr__(self, name: str, value: object) -> None:
        self[name] = value
