"""A cache of sealed records in front of a durable store, wrapped so that nobody above sees it.

What is promised, with S for `max_staleness` (5 seconds when not said otherwise):

1. The durable store alone decides. A record comes out of the cache only to be handed out; everything else,
   and every look under a lease, asks the durable store. The cache down, slow, full, emptied or filled with
   rubbish costs time-boxed waiting and nothing else.
2. A token that the cache hands out was in place in the durable store at some moment of the last S seconds, by
   the cache's own clock. This rests on no message: a reader puts a mark of its own into the cache *before* it
   reads the durable store, the records take the place of that mark and of nothing else, and they live no
   longer than the mark would have. It holds when the writer was cut off from the cache, when the writer
   died, when a failover lost its last commands, when a command was stuck in a paused server.
3. While a writer reaches the cache, the staleness is nil: before it writes, it puts a hold in place of the
   records, which also takes away the marks of readers that are under way, and after its write it clears. A
   reader that was slow finds its mark gone and fills nothing, so neither an older version nor a token that
   was rejected or revoked comes back.
4. A process never hands out a version older than one it has seen, and after a change that it could not clear
   from the cache it reads nothing from there for S seconds.
"""
