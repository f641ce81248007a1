"""KV tokens that the running attempts of one engine hold together, shared prefixes counted once."""

from __future__ import annotations

from parrot_backend.core.prefix import PrefixChain


class WorkingSet:
    """The tree of prompt prefixes under running attempts.

    A prefix is in use while any attempt that runs has it. Its length is what it was taken for when
    it came into use, although estimates of later prompts may differ: so what is given back is
    always what was taken.

    Who has a prefix must have all that are before it, too, or what is given back is not what was
    taken: so found beginnings, which are cut as each session happens to have it, do not count. And
    prefixes that are too short are followed, too, for another estimate may find them long enough.

    Args:
        min_tokens: Shorter prefixes count nothing.
    """

    def __init__(self, min_tokens: int) -> None:
        self._min_tokens = min_tokens
        self._users: dict[bytes, int] = {}
        self._tokens: dict[bytes, int] = {}

    def shared_tokens(self, chain: PrefixChain) -> int:
        """Return the length of the longest prefix of a prompt that is in use."""
        lengths = self._tokens
        for key, _ in reversed(chain):
            tokens = lengths.get(key)
            if tokens is not None:
                return tokens
        return 0

    def enter(self, chain: PrefixChain) -> None:
        """Note that one more attempt uses the prefixes of a prompt."""
        for key, tokens in chain:
            users = self._users.get(key, 0)
            self._users[key] = users + 1
            if not users:
                self._tokens[key] = tokens if tokens >= self._min_tokens else 0

    def leave(self, chain: PrefixChain) -> int:
        """Note that an attempt has ended.

        Args:
            chain: What it entered with.

        Returns:
            The length of the longest of its prefixes that stays in use.
        """
        for key, _ in chain:
            users = self._users.get(key, 0)
            if users > 1:
                self._users[key] = users - 1
            elif users:
                del self._users[key], self._tokens[key]
        return self.shared_tokens(chain)
