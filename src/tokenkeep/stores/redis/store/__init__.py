"""Redis and Valkey as the store itself.

Everything of one user lies in one hash slot, so that a change and its audit entry are one script. Per user:

| key | type | what it holds |
|---|---|---|
| `a` | hash | tokens in place, highest versions and leases |
| `h` | hash | history: tokens that were in place, without secrets |
| `o` | sorted set | the history by the moment of its making |
| `e` | stream | the audit trail |
| `c` | hash | its chain: the last event, and the marks of a purge and of a rotation of keys |
| `i` | hash | issued tokens |
| `x`, `w` | sorted sets | the ids of issued tokens by their end: all, and those that are not revoked |
| `r:…` | string | the answer to one change, for a minute |

Elsewhere: `t:id` and `p:id` lead from a token's id to its user, `step:…` is a claimed one-time code, `keys` and
`schema` are what they are called.
"""
