-- Say that one is there, and learn who else is. Times are the server's: clocks of machines differ.
--
-- KEYS[1]  sorted set, name → when it was last said, seconds since 1970
-- ARGV     1 seconds after which a name is forgotten; 2 and on: names that are there now
-- Returns  each name and, as text, how many seconds ago it was said
local now = redis.call('TIME')
local present = now[1] + now[2] / 1000000
for at = 2, #ARGV do
    redis.call('ZADD', KEYS[1], string.format('%.6f', present), ARGV[at])
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('(%.6f', present - ARGV[1]))
redis.call('EXPIRE', KEYS[1], ARGV[1] + 1)
local found = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
for at = 2, #found, 2 do
    found[at] = string.format('%.3f', math.max(present - found[at], 0))
end
return found
